"""The concepts of a study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from voxplain.concepts.concept import Concept

AnyConcepts = BaseModel


def bank_of(declared: Sequence[AnyConcepts], base: Path) -> Sequence[Concept]:
    return ()
