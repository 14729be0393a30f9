"""Random subsets of regions, noise and boxes: run once, whatever the number of maps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from voxplain.engine.baselines import intensity_range
from voxplain.engine.context import Context
from voxplain.engine.masks import Boxes, Coalitions, Fill, OneRegionOff, SlidingBox
from voxplain.engine.randomness import generator, standard_normal
from voxplain.metrics.context import MetricContext, Query
from voxplain.regions import RegionMap, RegionSpec

_NOISE_BYTES = 32 * 2**20
"""How much noise is held at once while maps are multiplied with it."""


@dataclass(frozen=True, eq=False)
class SubsetDrops:
    """How much the score drops when subsets of regions are removed.

    Attributes:
        regions: The partition.
        removed: Which regions each subset holds, ``(n, regions)`` bool.
        drops: S(x) - S(x without the subset), ``(n,)`` float64.
    """

    regions: RegionMap
    removed: Tensor
    drops: Tensor


@dataclass(frozen=True)
class RandomSubsets(Query):
    """Drops of the score without random subsets of a fixed share of the regions.

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

    def cost(self, context: Context) -> int:
        return self.draws

    def run(self, context: MetricContext) -> SubsetDrops:
        regions = context.engine.regions(self.regions, context.input)
        size = min(max(1, round(self.share * regions.count)), regions.count)
        removed = torch.zeros(self.draws, regions.count, dtype=torch.bool)
        for row in range(self.draws):
            source = generator(context.input.key, "subset", self.share, row)
            removed[row, torch.randperm(regions.count, generator=source)[:size]] = True
        return drops_without(context, regions, removed, self.fill)


@dataclass(frozen=True)
class SingleRegions(Query):
    """Drops of the score without each region alone.

    Attributes:
        regions: How the image is divided.
        fill: What removed voxels become.
    """

    regions: RegionSpec
    fill: Fill

    def cost(self, context: Context) -> int:
        return OneRegionOff(self.regions).expected(context)

    def run(self, context: MetricContext) -> SubsetDrops:
        regions = context.engine.regions(self.regions, context.input)
        removed = torch.eye(regions.count, dtype=torch.bool)
        return drops_without(context, regions, removed, self.fill)


def drops_without(
    context: MetricContext, regions: RegionMap, removed: Tensor, fill: Fill
) -> SubsetDrops:
    """The drop of the score for each subset of regions; ``removed`` is ``(n, regions)`` bool."""
    masks = Coalitions(regions, (~removed).float(), context.engine.shape)
    predictions = context.predict_masked(masks, fill)
    return SubsetDrops(regions, removed, context.score - predictions.scores)


@dataclass(frozen=True)
class NoiseDrops(Query):
    """Drops of the score under Gaussian noise on every voxel.

    Attributes:
        sigma: Standard deviation as a fraction of the intensity range.
        draws: Number of draws of noise.
    """

    sigma: float = 0.1
    draws: int = 64

    def cost(self, context: Context) -> int:
        return self.draws

    def run(self, context: MetricContext) -> NoisyDrops:
        image = context.input.image
        predictions = context.predict_many(
            self.draws,
            lambda numbers: torch.stack([image - self.noise(context, draw) for draw in numbers]),
        )
        return NoisyDrops(context.score - predictions.scores, self, context)

    def noise(self, context: MetricContext, draw: int) -> Tensor:
        """The noise I of one draw, ``(C, *spatial)``; the network sees x - I."""
        image = context.input.image
        span = context.cached("intensity range", lambda: intensity_range(image))
        source = generator(context.input.key, "infidelity", self.sigma, draw)
        return self.sigma * span * standard_normal(image, source)


@dataclass(frozen=True, eq=False)
class NoisyDrops:
    """Drops of the score under noise, which is drawn again when it is needed.

    Attributes:
        drops: S(x) - S(x - I), ``(n,)`` float64.
        query: Draws the noise.
        context: The image it is drawn for.
    """

    drops: Tensor
    query: NoiseDrops
    context: MetricContext

    def products(self, slopes: Tensor) -> Tensor:
        """<I, slope> for every draw of noise and several maps at once.

        Args:
            slopes: ``(maps, C, *spatial)`` float64.

        Returns:
            ``(maps, draws)`` float64.
        """
        flat, products = slopes.flatten(1), []
        at_once = max(1, _NOISE_BYTES // (8 * flat[0].numel()))
        for first in range(0, len(self.drops), at_once):
            draws = range(first, min(len(self.drops), first + at_once))
            noise = [self.query.noise(self.context, draw).double().flatten() for draw in draws]
            products.append(flat @ torch.stack(noise, dim=1))
        return torch.cat(products, dim=1).cpu()


@dataclass(frozen=True)
class BoxDrops(Query):
    """Random boxes, and the drop of the score when each is filled.

    Attributes:
        fill: What removed voxels become.
        window: Side of a box as a fraction of each axis.
        draws: Number of boxes.
    """

    fill: Fill
    window: float = 1 / 6
    draws: int = 64

    def cost(self, context: Context) -> int:
        return self.draws

    def run(self, context: MetricContext) -> tuple[Boxes, Tensor]:
        shape = context.engine.shape
        grid = SlidingBox(self.window, 1).masks(context.input, context.engine)
        assert isinstance(grid, Boxes)
        source = generator(context.input.key, "infidelity boxes", self.window)
        picks = torch.randint(len(grid), (self.draws,), generator=source).tolist()
        boxes = Boxes(tuple(grid.boxes[pick] for pick in picks), shape, grid.size)
        return boxes, context.score - context.predict_masked(boxes, self.fill).scores
