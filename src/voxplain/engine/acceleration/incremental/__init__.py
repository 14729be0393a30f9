"""Exact outputs for images that differ from one image in a box, without a full forward each."""

from __future__ import annotations

from voxplain.engine.acceleration.incremental.network import (
    GAIN,
    Incremental,
    WorkEstimate,
    estimate_work,
)

__all__ = ["GAIN", "Incremental", "WorkEstimate", "estimate_work"]
