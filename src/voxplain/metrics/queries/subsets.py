"""Random subsets of regions and noise on the image: asked once, whatever the number of maps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from voxplain.engine.baselines import intensity_range
from voxplain.engine.context import Context
from voxplain.engine.masks import Boxes, Coalitions, Fill, OneRegionOff, SlidingBox
from voxplain.engine.randomness import generator, standard_normal
from voxplain.metrics.context import MetricContext, Query
from voxplain.metrics.map_field import MapField
from voxplain.regions import RegionMap, RegionSpec

_CHANGES_BYTES = 32 * 2**20


@dataclass(frozen=True, eq=False)
class SubsetDrops:
    """What the score lost when subsets of regions were removed.

    Attributes:
        regions: The partition.
        removed: ``(n, regions)`` bool.
        drops: S(x) - S(x without them), ``(n,)`` float64.
    """

    regions: RegionMap
    removed: Tensor
    drops: Tensor


@dataclass(frozen=True)
class RandomSubsets(Query):
    """Random subsets of a fixed share of the regions.

    Attributes:
        regions: How the image is divided.
        fill: What removed voxels become.
        share: Of the regions that a subset removes.
        draws: Number of subsets.
    """

    regions: RegionSpec
    fill: Fill
    share: float = 0.2
    draws: int = 100

    def expected(self, context: Context) -> int:
        """One per draw."""
        return self.draws

    def run(self, context: MetricContext, field: MapField) -> SubsetDrops:
        """The drop for each subset."""
        regions = context.base.regions(self.regions, context.item)
        size = min(max(1, round(self.share * regions.count)), regions.count)
        removed = torch.zeros(self.draws, regions.count, dtype=torch.bool)
        for row in range(self.draws):
            source = generator(context.item.key, "subset", self.share, row)
            removed[row, torch.randperm(regions.count, generator=source)[:size]] = True
        return _drops(context, regions, removed, self.fill)


@dataclass(frozen=True)
class SingleRegions(Query):
    """Every region removed alone.

    Attributes:
        regions: How the image is divided.
        fill: What removed voxels become.
    """

    regions: RegionSpec
    fill: Fill

    def expected(self, context: Context) -> int:
        """One per region."""
        return OneRegionOff(self.regions).expected(context)

    def run(self, context: MetricContext, field: MapField) -> SubsetDrops:
        """The drop for each region."""
        regions = context.base.regions(self.regions, context.item)
        removed = torch.eye(regions.count, dtype=torch.bool)
        return _drops(context, regions, removed, self.fill)


def _drops(context: MetricContext, regions: RegionMap, removed: Tensor, fill: Fill) -> SubsetDrops:
    masks = Coalitions(regions, (~removed).float(), context.base.shape)
    observed = context.under(masks, fill)
    return SubsetDrops(regions, removed, context.whole - observed.scores)


@dataclass(frozen=True)
class NoiseDrops(Query):
    """Gaussian noise on every voxel.

    Attributes:
        sigma: Standard deviation as a fraction of the intensity range.
        draws: Number of changes.
    """

    sigma: float = 0.1
    draws: int = 64

    def expected(self, context: Context) -> int:
        """One per draw."""
        return self.draws

    def run(self, context: MetricContext, field: MapField) -> Perturbed:
        """The drop for each draw."""
        image = context.item.image
        observed = context.of_all(
            self.draws,
            lambda part: torch.stack([image - self.change(context, index) for index in part]),
        )
        return Perturbed(context.whole - observed.scores, self, context)

    def change(self, context: MetricContext, index: int) -> Tensor:
        """The noise of one draw, ``(C, *spatial)``; x - I is what the network sees."""
        image = context.item.image
        span = context.cached("intensity range", lambda: intensity_range(image))
        scale = self.sigma * span
        source = generator(context.item.key, "infidelity", self.sigma, index)
        return scale * standard_normal(image, source)


@dataclass(frozen=True, eq=False)
class Perturbed:
    """Changes of the image, made again when they are needed, and what the score lost by them.

    Attributes:
        drops: S(x) - S(x - I), ``(n,)`` float64.
        noise: The probe that draws them.
        context: The image they are drawn for.
    """

    drops: Tensor
    noise: NoiseDrops
    context: MetricContext

    def along(self, slopes: Tensor) -> Tensor:
        """<I, slope> for every draw, the slopes of several maps at once.

        Args:
            slopes: ``(maps, C, *spatial)`` float64.

        Returns:
            ``(maps, draws)`` float64.
        """
        flat, found = slopes.flatten(1), []
        together = max(1, _CHANGES_BYTES // (8 * flat[0].numel()))
        for first in range(0, len(self.drops), together):
            part = range(first, min(len(self.drops), first + together))
            changes = [self.noise.change(self.context, n).double().flatten() for n in part]
            found.append(flat @ torch.stack(changes, dim=1))
        return torch.cat(found, dim=1).cpu()


@dataclass(frozen=True)
class BoxDrops(Query):
    """Random boxes that are filled.

    Attributes:
        fill: What removed voxels become.
        window: Side of a box as a fraction of each axis.
        draws: Number of boxes.
    """

    fill: Fill
    window: float = 1 / 6
    draws: int = 64

    def expected(self, context: Context) -> int:
        """One per draw."""
        return self.draws

    def run(self, context: MetricContext, field: MapField) -> tuple[Boxes, Tensor]:
        """The boxes, and the drop for each."""
        shape = context.base.shape
        grid = SlidingBox(self.window, 1).masks(context.item, context.base)
        assert isinstance(grid, Boxes)
        source = generator(context.item.key, "infidelity boxes", self.window)
        picks = torch.randint(len(grid), (self.draws,), generator=source).tolist()
        boxes = Boxes(tuple(grid.boxes[pick] for pick in picks), shape, grid.size)
        return boxes, context.whole - context.under(boxes, self.fill).scores
