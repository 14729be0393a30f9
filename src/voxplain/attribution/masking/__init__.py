"""The masked stream: masks in, scores out, forwards only."""

from voxplain.attribution.masking.channel_reducers import (
    AblationWeights,
    DropOfChannels,
    ScoreWeights,
    Weighting,
)
from voxplain.attribution.masking.channels import ChannelsAsMasks, ChannelsOff, Level
from voxplain.attribution.masking.coalitions import Coalitions
from voxplain.attribution.masking.cones import Choice
from voxplain.attribution.masking.fills import AnyFill, Blur, Case, Constant, Fill, Mean, Noise
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
    "Case",
    "ChannelsAsMasks",
    "ChannelsOff",
    "Choice",
    "Coalitions",
    "Constant",
    "Drop",
    "DropOfChannels",
    "Fill",
    "Level",
    "MaskReducer",
    "MaskRequest",
    "MaskSampler",
    "Masks",
    "Mean",
    "Noise",
    "OneRegionOff",
    "Painter",
    "RandomGrids",
    "Reduction",
    "RegionDesign",
    "ScoreWeights",
    "Scores",
    "SlidingBox",
    "WeightedMean",
    "Weighting",
    "by_region",
]
