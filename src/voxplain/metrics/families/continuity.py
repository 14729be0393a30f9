"""Continuity: does the evidence move with the image?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from voxplain.engine.context import Context
from voxplain.engine.variants.perturbations import Shift
from voxplain.metrics.context import MetricContext, Query
from voxplain.metrics.curves import correlation
from voxplain.metrics.maps import MapField, Undefined
from voxplain.metrics.metric import Direction, Metric, Value, register
from voxplain.metrics.queries.removal import region_sums
from voxplain.metrics.re_explain import explain_again
from voxplain.regions import RegionMap, RegionSpec, Supervoxels

Fraction = Annotated[float, Field(gt=0, le=0.5)]


@register
class Continuity(Metric):
    """How much the sums of the map over regions change when image and regions are shifted a little.

    1 - Pearson correlation of the sums before and after, mean over the shifts; voxels that leave
    the image count neither before nor after (Montavon et al., 2018). The facts hold the value of
    each shift.
    """

    family: ClassVar[str] = "robustness"
    direction: ClassVar[Direction] = "down"
    range: ClassVar[tuple[float | None, float | None]] = (0.0, 2.0)
    chance: ClassVar[str] = "1"
    reference: ClassVar[str] = "Montavon et al., 2018"
    name: Literal["continuity"] = "continuity"
    shifts: tuple[Fraction, ...] = Field(
        default=(0.01, 0.02, 0.04), min_length=1, description="of each axis, at least one voxel"
    )
    regions: RegionSpec = Supervoxels()

    def queries(self, context: Context) -> tuple[Query, ...]:
        """Every shift along every axis, explained by all methods together."""
        return (Translations(self.shifts, self.regions),)

    def score(self, field: MapField, context: MetricContext) -> Value:
        field.require_informative()
        changes: dict[str, dict[str, float]]
        changes = context.run_query(self.queries(context.engine)[0])
        if field.name not in changes:
            raise Undefined("this map has no method that could explain a moved image")
        by_shift = changes[field.name]
        mean = sum(by_shift.values()) / len(by_shift)
        if math.isnan(mean):
            raise Undefined("the map has the same sum over every region that stays in the image")
        return Value(mean, facts=by_shift)


@dataclass(frozen=True)
class Translations(Query):
    """Changes of region sums when the image is shifted, for all methods together.

    Attributes:
        shifts: Of each axis.
        regions: How the image is divided.
    """

    explains: ClassVar[bool] = True

    shifts: tuple[float, ...]
    regions: Any

    def cost(self, context: Context) -> int:
        return len(list(self._shifts(context.shape)))

    def run(self, context: MetricContext) -> dict[str, dict[str, float]]:
        """By the key of the method, per shift 1 - correlation; NaN where sums are constant."""
        image, changes = context.input, dict[str, dict[str, float]]()
        regions = context.engine.regions(self.regions, image)
        for draw, axis, voxels in self._shifts(context.engine.shape):
            shift = Shift(voxels)
            shifted = shift.changed(image.image, image.key, draw)
            moved = shift.moved(draw, context.bound.unperturbed)
            maps = explain_again(context, shifted[None], moved=moved)
            for name in context.fields.keys() & maps.keys():
                after = shift.returned(maps[name][0], draw).double().sum(dim=0)
                change = _change(regions, context.fields[name].values, after, axis, voxels)
                changes.setdefault(name, {})[f"axis {axis}, {voxels} voxels"] = change
        return changes

    def _shifts(self, shape: tuple[int, ...]) -> Iterator[tuple[int, int, int]]:
        """Number of the axis among those of more than one voxel, axis, and voxels.

        Short axes have fewer different shifts.
        """
        long = [axis for axis, side in enumerate(shape) if side > 1]
        for draw, axis in enumerate(long):
            for voxels in sorted({max(1, round(share * shape[axis])) for share in self.shifts}):
                yield draw, axis, voxels


def _change(regions: RegionMap, before: Tensor, after: Tensor, axis: int, voxels: int) -> float:
    """1 - correlation of the region sums, over voxels that are in the image before and after."""
    stays = torch.ones_like(before)
    stays.narrow(axis, before.shape[axis] - voxels, voxels).zero_()
    try:
        return 1 - correlation(
            region_sums(regions, before * stays), region_sums(regions, after * stays)
        )
    except Undefined:
        return math.nan
