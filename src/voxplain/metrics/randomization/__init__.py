"""Randomization: maps of networks that have forgotten what they learned."""

from voxplain.metrics.randomization.cascade import Cascade, Steps
from voxplain.metrics.randomization.measures import (
    EfficientParameterRandomization,
    ParameterRandomization,
    RandomLogit,
    SmoothParameterRandomization,
)
from voxplain.metrics.randomization.record import recorded
from voxplain.metrics.randomization.reinitialize import copied, recalibrate, reinitialize
from voxplain.metrics.randomization.similarity import Similarity, similarity
from voxplain.metrics.randomization.stages import Order, grouped, stages

__all__ = [
    "Cascade",
    "EfficientParameterRandomization",
    "Order",
    "ParameterRandomization",
    "RandomLogit",
    "Similarity",
    "SmoothParameterRandomization",
    "Steps",
    "copied",
    "grouped",
    "recalibrate",
    "recorded",
    "reinitialize",
    "similarity",
    "stages",
]
