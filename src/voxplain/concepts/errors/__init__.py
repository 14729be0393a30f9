"""From an error to its cause to its correction."""

from __future__ import annotations

from voxplain.concepts.errors.explain import explain_errors
from voxplain.concepts.errors.result import ErrorCauses
from voxplain.concepts.errors.settings import ErrorSettings, UnitSets

__all__ = ["ErrorCauses", "ErrorSettings", "UnitSets", "explain_errors"]
