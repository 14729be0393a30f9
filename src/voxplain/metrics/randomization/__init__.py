"""Randomization: do maps change when weights, labels or the explained class are randomized?"""

from __future__ import annotations

from voxplain.engine.randomization.reinitialize import recalibrate, reinitialize
from voxplain.engine.randomization.stages import Order, grouped, stages
from voxplain.metrics.randomization.cascade import Cascade
from voxplain.metrics.randomization.cascade_record import recorded
from voxplain.metrics.randomization.parameter_randomization import (
    EfficientParameterRandomization,
    ParameterRandomization,
    SmoothParameterRandomization,
)
from voxplain.metrics.randomization.permuted_labels import DataRandomization
from voxplain.metrics.randomization.random_logit import RandomLogit
from voxplain.metrics.randomization.similarity import Similarity, similarity
from voxplain.metrics.randomization.steps import Steps

__all__ = [
    "Cascade",
    "DataRandomization",
    "EfficientParameterRandomization",
    "Order",
    "ParameterRandomization",
    "RandomLogit",
    "Similarity",
    "SmoothParameterRandomization",
    "Steps",
    "grouped",
    "recalibrate",
    "recorded",
    "reinitialize",
    "similarity",
    "stages",
]
