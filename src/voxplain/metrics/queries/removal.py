"""Ranked removal: the most, or the least, relevant voxels or regions of a map go first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from voxplain.engine.context import Context
from voxplain.engine.identity import identity
from voxplain.engine.masks import Coalitions, Fill, Masks, Painter
from voxplain.metrics.context import MetricContext, Query
from voxplain.metrics.map_field import MapField
from voxplain.metrics.perturbed import PerturbedPrediction
from voxplain.regions import RegionMap, RegionSpec

Order = Literal["most", "least"]
"""Which voxels are removed first."""


def _ascending(values: tuple[float, ...]) -> tuple[float, ...]:
    if list(values) != sorted(set(values)):
        raise ValueError(f"{list(values)} are not ascending; write the smallest share first")
    return values


Shares = Annotated[
    tuple[Annotated[float, Field(gt=0, lt=1)], ...], Field(min_length=1), AfterValidator(_ascending)
]
"""Shares of the image that are removed, the smallest first: not nothing, and not everything."""


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

    @property
    def size(self) -> tuple[float, ...]:  # type: ignore[override]
        """A sixth of each axis, as for boxes: removed sets have no extent of their own."""
        return tuple(max(1.0, side / 6) for side in self.shape)

    def painter(self, image: Tensor, filled: Tensor) -> Painter:
        """Adds to each row the voxels that it lacks."""
        return _RankedPainter(self, image, filled)

    def removed(self, index: int) -> Tensor:
        """The first voxels of the order."""
        gone = torch.zeros(math.prod(self.shape), dtype=torch.bool)
        gone[self.order[: self.counts[index]].cpu()] = True
        return gone.view(self.shape)


class _RankedPainter(Painter):
    def __init__(self, masks: RankedMasks, image: Tensor, filled: Tensor) -> None:
        super().__init__(image, filled)
        self._order = masks.order.to(image.device)
        self._counts = masks.counts
        self._held: list[int] = []

    def identities(self) -> Sequence[object]:
        """Sets of the same size are the same."""
        return [count or None for count in self._counts]

    def paint(self, row: int, canvas: Tensor, index: int) -> None:
        """Fills what is newly removed, or puts back what is not removed any more."""
        held, wanted = self._held[row], self._counts[index]
        changed = self._order[min(held, wanted) : max(held, wanted)]
        source = self.filled if wanted > held else self.image
        canvas.view(len(canvas), -1)[:, changed] = source.reshape(len(source), -1)[:, changed]
        self._held[row] = wanted

    def forget(self, rows: int) -> None:
        """Nothing is removed yet."""
        self._held = [0] * rows


@dataclass(frozen=True)
class Removal(Query):
    """Voxels removed in the order of a map, in equal steps from none to all.

    Attributes:
        fill: What removed voxels become.
        order: Which go first.
        levels: Number of steps; there is one answer more than steps.
        at: Removed shares in place of equal steps.
    """

    fill: Fill
    order: Order = "most"
    levels: int = 32
    at: tuple[float, ...] = ()

    per_map: ClassVar[bool] = True

    def expected(self, context: Context) -> int:
        """One per step."""
        return len(self.at) or self.levels + 1

    def run(self, context: MetricContext, field: MapField) -> PerturbedPrediction:
        """The prediction after each step, the unchanged image first; or at the given shares."""
        order = field.order if self.order == "most" else field.order.flip(0)
        counts = [round(len(order) * share) for share in self.at or shares(self.levels)]
        ends = [count for count in (0, len(order)) if count in counts]
        between = sorted(set(counts) - set(ends))

        def after(some: Sequence[int]) -> PerturbedPrediction:
            return context.under(RankedMasks(order, tuple(some), context.base.shape), self.fill)

        # The ends are the same for all maps and orders.
        known = context.cached(("ends", identity(self.fill), *ends), lambda: after(ends))
        found = PerturbedPrediction.joined([known, after(between)])
        return found[[[*ends, *between].index(count) for count in counts]]


def shares(levels: int) -> list[float]:
    """The removed share of the voxels after each step."""
    return [step / levels for step in range(levels + 1)]


@dataclass(frozen=True)
class RegionRemoval(Query):
    """Regions removed in the order of their mean relevance.

    Attributes:
        regions: How the image is divided.
        fill: What removed voxels become.
        order: Which go first.
        levels: Number of steps at most; None removes one region at a time.
    """

    regions: RegionSpec
    fill: Fill
    order: Order = "most"
    levels: int | None = None

    per_map: ClassVar[bool] = True

    def expected(self, context: Context) -> int:
        """One per step."""
        count = context.expected_regions(self.regions)
        return min(count, self.levels or count) + 1

    def run(
        self, context: MetricContext, field: MapField
    ) -> tuple[list[float], PerturbedPrediction]:
        """The removed share of the regions and the prediction after each step."""
        regions = context.base.regions(self.regions, context.item)
        ranked = means(regions, field.checked).argsort(descending=True, stable=True)
        if self.order == "least":
            ranked = ranked.flip(0)
        steps = min(regions.count, self.levels or regions.count)
        counts = [round(regions.count * step / steps) for step in range(steps + 1)]
        design = torch.ones(len(counts), regions.count)
        for row, count in enumerate(counts):
            design[row, ranked[:count]] = 0
        masks = Coalitions(regions, design, context.base.shape)
        return [count / regions.count for count in counts], context.under(masks, self.fill)


def sums(regions: RegionMap, values: Tensor) -> Tensor:
    """The sum over each region, ``(count,)`` float64; values ``(*spatial)``."""
    labels = regions.labels.to(values.device)
    if labels.ndim > values.ndim:
        labels = labels[0]
    inside = labels >= 0
    weights = values[inside].double()
    return torch.bincount(labels[inside], weights=weights, minlength=regions.count).cpu()


def means(regions: RegionMap, values: Tensor) -> Tensor:
    """The mean over each region, ``(count,)`` float64."""
    return sums(regions, values) / regions.sizes.cpu().clamp_min(1)
