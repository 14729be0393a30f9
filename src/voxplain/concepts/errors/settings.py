"""How causes of errors are looked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Substitution = Literal["mean", "resample"]
"""What replaces units and modalities: their mean over the cases, or their values in another one."""
Filling = Literal["surround", "blur", "case"]
"""What replaces structures: what surrounds them, a blur, or another case at the same place."""
ErrorKind = Literal["fp", "fn"]
"""What is falsely predicted, or missed."""

UnitSets = Mapping[str, tuple[str, Sequence[int]]]
"""Sets of units by name: a layer and its channels, such as the detectors of a concept."""


class ErrorSettings(BaseModel):
    """How causes of errors are looked for.

    Attributes:
        kinds: False positives, false negatives, or both.
        per_case: Most errors of each kind per case.
        most: Most errors in all, the largest.
        least: Smallest volume of an error, in mL (cm² in 2-D, voxels without physical size).
        units: Most units per layer that are replaced exactly; a gradient screen chooses them.
        replacement: What replaces units and modalities.
        fill: What replaces structures.
        draws: Random regions and sets of a null.
        enough: Share of an error whose removal counts as removing it.
        level: Largest q of a cause.
        alike: Mean cosine similarity of effects down to which errors are in one group.
        factors: What corrections leave of the deviation of units; 0 is an ablation.
        corrections: Most corrections that are tried.
        cost: Largest loss of the mean Dice of other cases at which a correction is chosen.
        held_out: Share of the patients on which corrections are scored.
        seed: Of all draws.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kinds: tuple[ErrorKind, ...] = ("fp", "fn")
    per_case: int = Field(default=1, ge=1)
    most: int = Field(default=8, ge=1)
    least: float = Field(default=0.0, ge=0)
    units: int = Field(default=32, ge=1)
    replacement: Substitution = "mean"
    fill: Filling = "surround"
    draws: int = Field(default=99, ge=1)
    enough: float = Field(default=0.5, gt=0, le=1)
    level: float = Field(default=0.05, gt=0, lt=1)
    alike: float = Field(default=0.8, ge=-1, le=1)
    factors: tuple[float, ...] = (0.0, 0.5)
    corrections: int = Field(default=8, ge=0)
    cost: float = Field(default=0.01, ge=0)
    held_out: float = Field(default=0.5, gt=0, lt=1)
    seed: int = 0
