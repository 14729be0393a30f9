"""Perturbation methods: what the score loses when parts of the image are removed."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from voxplain.attribution.mask_method import MaskMethod
from voxplain.attribution.masking import (
    AnyFill,
    Blur,
    Case,
    Choice,
    Constant,
    Drop,
    Fill,
    MaskRequest,
    Mean,
    OneRegionOff,
    RandomGrids,
    SlidingBox,
    WeightedMean,
)
from voxplain.attribution.method import Resampling, Results, register
from voxplain.attribution.passes import INPUT
from voxplain.attribution.scene import Scene
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

    def requests(self, scene: Scene) -> tuple[MaskRequest, ...]:
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

    def requests(self, scene: Scene) -> tuple[MaskRequest, ...]:
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

    def requests(self, scene: Scene) -> tuple[MaskRequest, ...]:
        """Every region alone, once per case."""
        fill = Case(references=self.references)
        return (MaskRequest(OneRegionOff(self.regions), fill, Drop()),)


class _OverRandomGrids(MaskMethod):
    """The mean score of random masks.

    Attributes:
        samples: Number of masks.
        cells: Of the grid, along the shortest axis.
        keep: Probability that a cell is kept.
    """

    resampling: ClassVar[Resampling] = "value"

    samples: int | None = Field(default=None, ge=1, description="absent: 2000 in 3-D, 4000 in 2-D")
    cells: int = Field(default=7, ge=1)
    keep: float = Field(default=0.5, gt=0, lt=1)

    def _filled(self, fill: Fill, scene: Scene, about: str = "") -> MaskRequest:
        samples = self.samples or (2000 if len(scene.shape) > 2 else 4000)
        grids = RandomGrids(samples, self.cells, self.keep)
        return MaskRequest(grids, fill, WeightedMean(about))


@register
class Rise(_OverRandomGrids):
    """How far the score lies above its mean over random masks where they show a place."""

    formula = "sum_j (S(x_mj) - mean S) m_j / sum_j m_j over random smooth masks"
    reference = "Petsiuk et al., 2018"
    name: Literal["rise"] = "rise"
    fill: AnyFill = Constant()

    def requests(self, scene: Scene) -> tuple[MaskRequest, ...]:
        """Random grids."""
        return (self._filled(self.fill, scene),)


@register
class McRise(_OverRandomGrids):
    """RISE once per fill: whether a place matters for being dark, average or bright."""

    formula = "one RISE map per value that hides what is not shown, along the channel axis"
    reference = "Hatakeyama et al., 2020"
    name: Literal["mc_rise"] = "mc_rise"
    fills: tuple[AnyFill, ...] = Field(
        default=(Constant(value="minimum"), Mean(), Constant(value="maximum")), min_length=1
    )

    def requests(self, scene: Scene) -> tuple[MaskRequest, ...]:
        """The same random grids with every fill."""
        pairs = zip(self.fills, self.map_channels, strict=True)
        return tuple(self._filled(fill, scene, about) for fill, about in pairs)

    def maps(self, results: Results, scene: Scene) -> dict[str | None, Tensor]:
        """One channel per fill."""
        return {None: torch.cat([found[INPUT] for found in results])}

    @property
    def map_channels(self) -> tuple[str, ...]:
        """The fills."""
        return tuple(f"hidden by {fill.in_words}" for fill in self.fills)
