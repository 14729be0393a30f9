"""Ranked removal: voxels or regions are removed in the order of a map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from voxplain.engine.context import Context
from voxplain.engine.identity import identity
from voxplain.engine.masks import Coalitions, Fill, Masks, Painter
from voxplain.metrics.context import MapQuery, MetricContext
from voxplain.metrics.maps import MapField
from voxplain.metrics.perturbed import PerturbedPrediction
from voxplain.regions import RegionMap, RegionSpec

Order = Literal["most", "least"]
"""Whether the most or the least relevant voxels are removed first."""


def _ascending(values: tuple[float, ...]) -> tuple[float, ...]:
    if list(values) != sorted(set(values)):
        raise ValueError(f"{list(values)} are not ascending; write the smallest share first")
    return values


Shares = Annotated[
    tuple[Annotated[float, Field(gt=0, lt=1)], ...], Field(min_length=1), AfterValidator(_ascending)
]
"""Shares of the image that are removed, ascending, between 0 and 1."""


@dataclass(frozen=True)
class Removal(MapQuery):
    """Predictions while voxels are removed in the order of a map.

    Attributes:
        fill: What removed voxels become.
        order: Which voxels are removed first.
        levels: Number of equal steps from nothing to everything; the prediction for the unchanged
            image comes first.
        at: Removed shares, in place of equal steps.
    """

    fill: Fill
    order: Order = "most"
    levels: int = 32
    at: tuple[float, ...] = ()

    def cost(self, context: Context) -> int:
        return len(self.at) or self.levels + 1

    def run(self, context: MetricContext, field: MapField) -> PerturbedPrediction:
        order = field.order if self.order == "most" else field.order.flip(0)
        counts = [round(len(order) * share) for share in self.at or shares(self.levels)]
        ends = [count for count in (0, len(order)) if count in counts]
        between = sorted(set(counts) - set(ends))

        def predicted(removed: Sequence[int]) -> PerturbedPrediction:
            masks = RankedMasks(order, tuple(removed), context.engine.shape)
            return context.predict_masked(masks, self.fill)

        # The ends are the same for all maps and orders.
        at_ends = context.cached(("ends", identity(self.fill), *ends), lambda: predicted(ends))
        predictions = PerturbedPrediction.joined([at_ends, predicted(between)])
        return predictions[[[*ends, *between].index(count) for count in counts]]


def shares(levels: int) -> list[float]:
    """The removed share of the voxels after each step."""
    return [step / levels for step in range(levels + 1)]


@dataclass(frozen=True, eq=False)
class RankedMasks(Masks):
    """Growing sets of voxels in the order of a ranking.

    Attributes:
        order: Flat voxel numbers, the first to be removed first.
        counts: How many voxels each mask removes, ascending.
        shape: Spatial shape of the image.
    """

    order: Tensor
    counts: tuple[int, ...]
    shape: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.counts)

    def extent(self) -> tuple[float, ...]:
        """A sixth of each axis, as for boxes, since removed sets have no extent of their own."""
        return tuple(max(1.0, side / 6) for side in self.shape)

    def painter(self, image: Tensor, filled: Tensor) -> Painter:
        return _RankedPainter(self, image, filled)

    def removed(self, index: int) -> Tensor:
        removed = torch.zeros(math.prod(self.shape), dtype=torch.bool)
        removed[self.order[: self.counts[index]].cpu()] = True
        return removed.view(self.shape)


class _RankedPainter(Painter):
    """Paints the voxels in which a row differs from what it already shows."""

    def __init__(self, masks: RankedMasks, image: Tensor, filled: Tensor) -> None:
        super().__init__(image, filled)
        self._order = masks.order.to(image.device)
        self._counts = masks.counts
        self._removed_in_row: list[int] = []

    def identities(self) -> Sequence[object]:
        """Sets of the same size are the same."""
        return [count or None for count in self._counts]

    def paint(self, row: int, canvas: Tensor, index: int) -> None:
        """Fills newly removed voxels, or restores voxels that are not removed any more."""
        before, after = self._removed_in_row[row], self._counts[index]
        changed = self._order[min(before, after) : max(before, after)]
        source = self.filled if after > before else self.image
        canvas.view(len(canvas), -1)[:, changed] = source.reshape(len(source), -1)[:, changed]
        self._removed_in_row[row] = after

    def reset(self, rows: int) -> None:
        self._removed_in_row = [0] * rows


@dataclass(frozen=True)
class RegionRemoval(MapQuery):
    """Predictions while regions are removed in the order of their mean relevance.

    Attributes:
        regions: How the image is divided.
        fill: What removed voxels become.
        order: Which regions are removed first.
        levels: Largest number of steps; None removes one region at a time.
    """

    regions: RegionSpec
    fill: Fill
    order: Order = "most"
    levels: int | None = None

    def cost(self, context: Context) -> int:
        count = context.expected_regions(self.regions)
        return min(count, self.levels or count) + 1

    def run(
        self, context: MetricContext, field: MapField
    ) -> tuple[list[float], PerturbedPrediction]:
        """The removed share of the regions and the prediction after each step."""
        regions = context.engine.regions(self.regions, context.input)
        means = region_means(regions, field.require_informative())
        ranked = means.argsort(descending=True, stable=True)
        if self.order == "least":
            ranked = ranked.flip(0)
        steps = min(regions.count, self.levels or regions.count)
        counts = [round(regions.count * step / steps) for step in range(steps + 1)]
        kept = torch.ones(len(counts), regions.count)
        for row, count in enumerate(counts):
            kept[row, ranked[:count]] = 0
        masks = Coalitions(regions, kept, context.engine.shape)
        predictions = context.predict_masked(masks, self.fill)
        return [count / regions.count for count in counts], predictions


def region_sums(regions: RegionMap, values: Tensor) -> Tensor:
    """The sum over each region, ``(count,)`` float64; values ``(*spatial)``."""
    labels = regions.labels.to(values.device)
    if labels.ndim > values.ndim:
        labels = labels[0]
    inside = labels >= 0
    weights = values[inside].double()
    return torch.bincount(labels[inside], weights=weights, minlength=regions.count).cpu()


def region_means(regions: RegionMap, values: Tensor) -> Tensor:
    """The mean over each region, ``(count,)`` float64; values ``(*spatial)``."""
    return region_sums(regions, values) / regions.sizes.cpu().clamp_min(1)
