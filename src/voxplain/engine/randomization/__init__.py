"""Random weights for the stages of a network: what a result without training looks like."""

from __future__ import annotations

from voxplain.engine.randomization.plain_weights import with_plain_weights
from voxplain.engine.randomization.random_network import random_network
from voxplain.engine.randomization.reinitialize import recalibrate, reinitialize
from voxplain.engine.randomization.stages import Order, grouped, stages

__all__ = [
    "Order",
    "grouped",
    "random_network",
    "recalibrate",
    "reinitialize",
    "stages",
    "with_plain_weights",
]
