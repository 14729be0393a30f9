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
from voxplain.metrics.context import MetricContext, Query
from voxplain.metrics.curves import correlation
from voxplain.metrics.map_field import MapField, Undefined
from voxplain.metrics.metric import Direction, Metric, Value, register
from voxplain.metrics.queries.perturbations import Shift
from voxplain.metrics.queries.removal import sums
from voxplain.metrics.re_explain import explain_again
from voxplain.regions import RegionMap, RegionSpec, Supervoxels

Fraction = Annotated[float, Field(gt=0, le=0.5)]


@register
class Continuity(Metric):
    """How much the scores of regions change while image and regions move a little.

    1 - Pearson correlation of the sums of the map over regions, mean over the shifts; what leaves
    the image counts neither before nor after (Montavon et al., 2018).
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
        """The mean; each of the shifts in the facts."""
        field.checked  # noqa: B018 - raises for maps that say nothing
        found: dict[str, dict[str, float]]
        found = context.run_query(self.queries(context.base)[0], field)
        if field.name not in found:
            raise Undefined("there is no method behind this map that could explain a moved image")
        changes = found[field.name]
        mean = sum(changes.values()) / len(changes)
        if math.isnan(mean):
            raise Undefined("the map has the same sum over every region that stays in the image")
        return Value(mean, facts=changes)


@dataclass(frozen=True)
class Translations(Query):
    """Region sums of maps of a moved image, by all methods together.

    Attributes:
        shifts: Of each axis.
        regions: How the image is divided.
    """

    explains: ClassVar[bool] = True

    shifts: tuple[float, ...]
    regions: Any

    def expected(self, context: Context) -> int:
        """An explanation per shift and axis; short axes have fewer different shifts."""
        return len(list(self._moves(context.shape)))

    def run(self, context: MetricContext, field: MapField) -> dict[str, dict[str, float]]:
        """By the key of the method, per move 1 - correlation; NaN where sums are constant."""
        item, found = context.item, dict[str, dict[str, float]]()
        regions = context.base.regions(self.regions, item)
        for draw, axis, voxels in self._moves(context.base.shape):
            around = Shift(voxels)
            changed = around.changed(item.image, item.key, draw)
            moved = around.moved(draw, context.base.shape)
            maps = explain_again(context, changed[None], moved=moved)
            for name in context.fields.keys() & maps.keys():
                back = around.returned(maps[name][0], draw).double().sum(dim=0)
                change = _change(regions, context.fields[name].values, back, axis, voxels)
                found.setdefault(name, {})[f"axis {axis}, {voxels} voxels"] = change
        return found

    def _moves(self, shape: tuple[int, ...]) -> Iterator[tuple[int, int, int]]:
        """Number among the axes that have a length, axis, and voxels."""
        long = [axis for axis, side in enumerate(shape) if side > 1]
        for draw, axis in enumerate(long):
            for voxels in sorted({max(1, round(part * shape[axis])) for part in self.shifts}):
                yield draw, axis, voxels


def _change(regions: RegionMap, before: Tensor, after: Tensor, axis: int, voxels: int) -> float:
    """Of the sums over what is in the image before and after the move."""
    stays = torch.ones_like(before)
    stays.narrow(axis, before.shape[axis] - voxels, voxels).zero_()
    try:
        return 1 - correlation(sums(regions, before * stays), sums(regions, after * stays))
    except Undefined:
        return math.nan


__all__ = ["Continuity", "Translations"]
