"""Feature ablation and permutation: the score without a region, or without a channel of a layer."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from voxplain.attribution.methods.base import AtLayers, MaskMethod
from voxplain.engine.context import Context
from voxplain.engine.masks import (
    AnyFill,
    CaseFill,
    ChannelsOff,
    Constant,
    Drop,
    DropOfChannels,
    Level,
    Mean,
    OneRegionOff,
)
from voxplain.engine.method import register
from voxplain.engine.requests import MaskRequest
from voxplain.engine.stream_io import StreamResults
from voxplain.engine.taps import INPUT
from voxplain.regions import RegionSpec, Supervoxels


@register
class FeatureAblation(MaskMethod):
    """The drop of the score when each region is removed."""

    formula = "S(x) - S(x with the region filled), on every voxel of the region"
    reference = "Fisher et al., 2019"
    name: Literal["feature_ablation"] = "feature_ablation"
    regions: RegionSpec = Supervoxels()
    fill: AnyFill = Mean()

    def requests(self, context: Context) -> tuple[MaskRequest, ...]:
        return (MaskRequest(OneRegionOff(self.regions), self.fill, Drop()),)


@register
class LayerFeatureAblation(AtLayers, MaskMethod):
    """The drop of the score when each channel of a layer is replaced by a constant."""

    formula = "S - S(channel k of the layer replaced), on every cell of the channel"
    reference = "Fisher et al., 2019"
    window_assembly = "blend"
    name: Literal["layer_feature_ablation"] = "layer_feature_ablation"
    level: Level = Field(default=0.0, description="of a replaced channel: a number, or its mean")
    max_channels: int | None = Field(
        default=None, ge=1, description="groups of similar channels; absent: every channel alone"
    )

    def requests(self, context: Context) -> tuple[MaskRequest, ...]:
        """One forward per channel of each layer."""
        samplers = [ChannelsOff(tap, self.max_channels, self.level) for tap in self.taps(context)]
        return tuple(MaskRequest(masks, Constant(), DropOfChannels()) for masks in samplers)

    def maps(self, results: StreamResults, context: Context) -> dict[str | None, Tensor]:
        """One map per layer, each from its own stream."""
        pairs = zip(self.taps(context), results, strict=True)
        return {tap.path: stream[INPUT] for tap, stream in pairs}


@register
class FeaturePermutation(MaskMethod):
    """The drop of the score when each region is replaced by that of other cases.

    The cases are the references; where none are given, the other images of the batch.
    """

    formula = "mean over cases of S(x) - S(x with the region taken from the case)"
    reference = "Fisher et al., 2019"
    name: Literal["feature_permutation"] = "feature_permutation"
    regions: RegionSpec = Supervoxels()
    references: int = Field(default=8, ge=1, description="upper bound on the cases that are used")

    def requests(self, context: Context) -> tuple[MaskRequest, ...]:
        """One forward per region and case."""
        fill = CaseFill(references=self.references)
        return (MaskRequest(OneRegionOff(self.regions), fill, Drop()),)
