"""The masked stream: masks in, scores out, forwards only."""

from voxplain.attribution.masking.coalitions import Coalitions
from voxplain.attribution.masking.fills import AnyFill, Blur, Case, Constant, Fill, Mean
from voxplain.attribution.masking.masks import Boxes, Masks, Painter
from voxplain.attribution.masking.reducers import (
    Drop,
    MaskReducer,
    Reduction,
    Scores,
    WeightedMean,
    by_region,
)
from voxplain.attribution.masking.request import MaskRequest
from voxplain.attribution.masking.samplers import (
    ChannelsAsMasks,
    ChannelsOff,
    MaskSampler,
    OneRegionOff,
    RandomGrids,
    RegionDesign,
    SlidingBox,
)

__all__ = [
    "AnyFill",
    "Blur",
    "Boxes",
    "Case",
    "ChannelsAsMasks",
    "ChannelsOff",
    "Coalitions",
    "Constant",
    "Drop",
    "Fill",
    "MaskReducer",
    "MaskRequest",
    "MaskSampler",
    "Masks",
    "Mean",
    "OneRegionOff",
    "Painter",
    "RandomGrids",
    "Reduction",
    "RegionDesign",
    "Scores",
    "SlidingBox",
    "WeightedMean",
    "by_region",
]
