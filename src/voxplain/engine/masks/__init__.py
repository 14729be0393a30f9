"""Masked streams: scores of an image under masks, by forward passes alone."""

from __future__ import annotations

from voxplain.engine.masks.channel_samplers import ChannelsAsMasks, ChannelsOff, Level
from voxplain.engine.masks.coalitions import Coalitions
from voxplain.engine.masks.fills import AnyFill, Blur, CaseFill, Constant, Fill, Mean, Noise
from voxplain.engine.masks.masks import Boxes, Masks, Painter
from voxplain.engine.masks.reducers.base import (
    Drop,
    MaskReducer,
    MaskScores,
    Reduction,
    WeightedMean,
    by_region,
)
from voxplain.engine.masks.reducers.channels import (
    AblationWeights,
    DropOfChannels,
    ScoreWeights,
    Weighting,
)
from voxplain.engine.masks.samplers import (
    MaskSampler,
    OneRegionOff,
    RandomGrids,
    RegionDesign,
    SlidingBox,
)

__all__ = [
    "AblationWeights",
    "AnyFill",
    "Blur",
    "Boxes",
    "CaseFill",
    "ChannelsAsMasks",
    "ChannelsOff",
    "Coalitions",
    "Constant",
    "Drop",
    "DropOfChannels",
    "Fill",
    "Level",
    "MaskReducer",
    "MaskSampler",
    "MaskScores",
    "Masks",
    "Mean",
    "Noise",
    "OneRegionOff",
    "Painter",
    "RandomGrids",
    "Reduction",
    "RegionDesign",
    "ScoreWeights",
    "SlidingBox",
    "WeightedMean",
    "Weighting",
    "by_region",
]
