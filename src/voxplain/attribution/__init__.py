"""Attribution: which voxels and layers drive a score."""

from __future__ import annotations

from voxplain.attribution.describe.cost import estimate, group
from voxplain.attribution.explanation import explain
from voxplain.attribution.prediction import Prediction, predict
from voxplain.attribution.result import Attribution
from voxplain.engine.method import Method, parse_method

__all__ = [
    "Attribution",
    "Method",
    "Prediction",
    "estimate",
    "explain",
    "group",
    "parse_method",
    "predict",
]
