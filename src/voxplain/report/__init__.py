"""The HTML report of a run."""

from __future__ import annotations

from voxplain.report.render import render

__all__ = ["render"]
