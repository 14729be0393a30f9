"""Attribution: which voxels and layers drive a score."""

from voxplain.attribution.explanation import explain
from voxplain.attribution.method import Method, methods, parse_method
from voxplain.attribution.planning import estimate, group
from voxplain.attribution.prediction import Prediction, predict
from voxplain.attribution.result import Attribution

__all__ = [
    "Attribution",
    "Method",
    "Prediction",
    "estimate",
    "explain",
    "group",
    "methods",
    "parse_method",
    "predict",
]
