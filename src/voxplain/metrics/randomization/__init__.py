"""Randomization: maps of networks that have forgotten what they learned."""

from __future__ import annotations

from voxplain.engine.acceleration.forward_trace import ForwardTrace, trace
from voxplain.metrics.randomization.cascade import Cascade
from voxplain.metrics.randomization.measures import (
    EfficientParameterRandomization,
    ParameterRandomization,
    SmoothParameterRandomization,
)
from voxplain.metrics.randomization.other_class import RandomLogit
from voxplain.metrics.randomization.record import recorded
from voxplain.metrics.randomization.reinitialize import recalibrate, reinitialize
from voxplain.metrics.randomization.similarity import Similarity, similarity
from voxplain.metrics.randomization.stages import Order, grouped, stages
from voxplain.metrics.randomization.steps import Steps
from voxplain.models.copies import copied

__all__ = [
    "Cascade",
    "EfficientParameterRandomization",
    "ForwardTrace",
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
    "trace",
]
