"""Perturbation methods: what the score loses when parts of the image are removed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from voxplain.attribution.mask_method import MaskMethod
from voxplain.attribution.masking import (
    AnyFill,
    Blur,
    Constant,
    Drop,
    MaskRequest,
    Mean,
    OneRegionOff,
    RandomGrids,
    SlidingBox,
    WeightedMean,
)
from voxplain.attribution.method import register
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

    def requests(self, scene: Scene) -> tuple[MaskRequest, ...]:
        """Every box alone."""
        return (MaskRequest(SlidingBox(self.window, self.stride), self.fill, Drop()),)


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
class Rise(MaskMethod):
    """The mean score of random masks that show a place."""

    formula = "sum_j S(x_mj) m_j / sum_j m_j over random smooth masks"
    reference = "Petsiuk et al., 2018"
    resampling = "value"
    name: Literal["rise"] = "rise"
    samples: int | None = Field(default=None, ge=1, description="absent: 2000 in 3-D, 4000 in 2-D")
    cells: int = Field(default=7, ge=1)
    keep: float = Field(default=0.5, gt=0, lt=1)
    fill: AnyFill = Constant()

    def requests(self, scene: Scene) -> tuple[MaskRequest, ...]:
        """Random grids."""
        samples = self.samples or (2000 if len(scene.shape) > 2 else 4000)
        return (
            MaskRequest(RandomGrids(samples, self.cells, self.keep), self.fill, WeightedMean()),
        )
