"""Occlusion, feature ablation and feature permutation: the score without a part of the image."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from voxplain.attribution.methods.layer_method import LayerMethod
from voxplain.attribution.methods.mask_method import MaskMethod
from voxplain.engine.context import Context
from voxplain.engine.masks import (
    AnyFill,
    Blur,
    CaseFill,
    ChannelsOff,
    Constant,
    Drop,
    DropOfChannels,
    Level,
    Mean,
    OneRegionOff,
    SlidingBox,
)
from voxplain.engine.method import Resampling, register
from voxplain.engine.network_layers import Assembly
from voxplain.engine.requests import Choice, MaskRequest
from voxplain.engine.stream_io import StreamResults
from voxplain.engine.taps import INPUT
from voxplain.extents import Extent
from voxplain.regions import RegionSpec, Supervoxels


@register
class Occlusion(MaskMethod):
    """How much the score falls when a box around a place is hidden."""

    formula = "mean over the boxes around v of S(x) - S(x with the box filled)"
    reference = "Zeiler and Fergus, 2014"
    name: Literal["occlusion"] = "occlusion"
    window: Extent = Field(default=1 / 6, description="of a box: voxels, fraction of an axis, mm")
    stride: Extent | None = Field(default=None, description="from box to box; absent: half a box")
    fill: AnyFill = Blur()
    incremental: Choice = Field(
        default="auto", description="compute only what a box changes, where that is less work"
    )

    def requests(self, context: Context) -> tuple[MaskRequest, ...]:
        """Every box alone."""
        boxes = SlidingBox(self.window, self.stride)
        return (MaskRequest(boxes, self.fill, Drop(), incremental=self.incremental),)


@register
class FeatureAblation(MaskMethod):
    """How much the score falls when a region is removed."""

    formula = "S(x) - S(x with the region filled), on every voxel of the region"
    reference = "Fisher et al., 2019"
    name: Literal["feature_ablation"] = "feature_ablation"
    regions: RegionSpec = Supervoxels()
    fill: AnyFill = Mean()

    def requests(self, context: Context) -> tuple[MaskRequest, ...]:
        """Every region alone."""
        return (MaskRequest(OneRegionOff(self.regions), self.fill, Drop()),)


@register
class FeaturePermutation(MaskMethod):
    """How much the score falls when a region is taken from other cases."""

    formula = "mean over cases of S(x) - S(x with the region taken from the case)"
    reference = "Fisher et al., 2019"
    name: Literal["feature_permutation"] = "feature_permutation"
    regions: RegionSpec = Supervoxels()
    references: int = Field(default=8, ge=1, description="upper bound on the cases that are used")

    def requests(self, context: Context) -> tuple[MaskRequest, ...]:
        """Every region alone, once per case."""
        fill = CaseFill(references=self.references)
        return (MaskRequest(OneRegionOff(self.regions), fill, Drop()),)


@register
class LayerFeatureAblation(MaskMethod, LayerMethod):
    """How much the score falls when a channel of a layer is taken away."""

    formula = "S - S(channel k of the layer replaced), on every cell of the channel"
    reference = "Fisher et al., 2019"
    family: ClassVar[str] = "layer"
    resampling: ClassVar[Resampling] = "value"
    units: ClassVar[str] = "score"
    windows: ClassVar[Assembly] = "blend"
    name: Literal["layer_feature_ablation"] = "layer_feature_ablation"
    level: Level = Field(default=0.0, description="what a channel becomes: a number, or its mean")
    max_channels: int | None = Field(
        default=None, ge=1, description="gather alike channels into so many; absent: one by one"
    )

    def requests(self, context: Context) -> tuple[MaskRequest, ...]:
        """One forward per channel of each layer."""
        samplers = [ChannelsOff(tap, self.max_channels, self.level) for tap in self._taps(context)]
        return tuple(MaskRequest(masks, Constant(), DropOfChannels()) for masks in samplers)

    def maps(self, results: StreamResults, context: Context) -> dict[str | None, Tensor]:
        """One map per layer."""
        pairs = zip(self._taps(context), results, strict=True)
        return {tap.path: found[INPUT] for tap, found in pairs}
