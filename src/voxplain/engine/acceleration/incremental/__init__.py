"""Exact outputs for images that differ from one known image in a box, at the cost of its cone."""

from __future__ import annotations

from voxplain.engine.acceleration.incremental.network import Incremental
from voxplain.engine.acceleration.incremental.trial import (
    GAIN,
    WorkEstimate,
    prepared,
    work,
    worthwhile,
)

__all__ = ["GAIN", "Incremental", "WorkEstimate", "prepared", "work", "worthwhile"]
