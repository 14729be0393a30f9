"""Targets: what is explained, as one number per image."""

from __future__ import annotations

from voxplain.targets.base import Target, UnperturbedOutput
from voxplain.targets.contrast import Contrast
from voxplain.targets.field import Term, WeightField
from voxplain.targets.images import ImageTarget, Intensity, ReconstructionError
from voxplain.targets.parse import AnyTarget, parse_target
from voxplain.targets.regions import ErrorRegion, Pixelwise, Region, Threshold
from voxplain.targets.scores import ClassScore, Label, Unit, Volume

__all__ = [
    "AnyTarget",
    "ClassScore",
    "Contrast",
    "ErrorRegion",
    "ImageTarget",
    "Intensity",
    "Label",
    "Pixelwise",
    "ReconstructionError",
    "Region",
    "Target",
    "Term",
    "Threshold",
    "Unit",
    "UnperturbedOutput",
    "Volume",
    "WeightField",
    "parse_target",
]
