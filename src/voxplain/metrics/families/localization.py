"""Localization: does the map point at what a person drew? No forward is needed."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from voxplain.metrics.context import MetricContext
from voxplain.metrics.map_field import MapField, Undefined
from voxplain.metrics.metric import Direction, Metric, Value, register
from voxplain.metrics.queries.voxel_sets import dilated


class Localization(Metric):
    """What all comparisons with a reference mask share."""

    family: ClassVar[str] = "localization"
    direction: ClassVar[Direction] = "up"
    range: ClassVar[tuple[float | None, float | None]] = (0.0, 1.0)

    def _reference(self, field: MapField, context: MetricContext) -> Tensor:
        """The mask, ``(*spatial)`` bool, where map and mask say anything.

        Raises:
            Undefined: If there is no mask, or it is empty or everything.
        """
        field.checked  # noqa: B018 - raises for maps that say nothing
        if context.reference is None:
            raise Undefined("there is no reference mask")
        inside = context.reference.to(field.values.device)
        if not bool(inside.any()) or bool(inside.all()):
            raise Undefined("the reference mask is empty, or everything")
        return inside


def top(field: MapField, count: int) -> Tensor:
    """The ``count`` most relevant voxels, ``(*spatial)`` bool; equal values at random."""
    chosen = torch.zeros(field.values.numel(), dtype=torch.bool, device=field.values.device)
    chosen[field.order[:count]] = True
    return chosen.view(field.values.shape)


def _sorted_hits(field: MapField, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Voxels taken and hits among them at the end of every group of equal values."""
    values, order = field.values.flatten().sort(descending=True)
    hits = inside.flatten()[order].double().cumsum(0)
    ends = torch.cat([values[1:] != values[:-1], values.new_ones(1, dtype=torch.bool)])
    taken = torch.arange(1, len(values) + 1, dtype=torch.float64, device=values.device)
    return taken[ends], hits[ends]


@register
class RocAuc(Localization):
    """How often a voxel inside the mask ranks above one outside: 0.5 is chance."""

    chance: ClassVar[str] = "0.5"
    name: Literal["roc_auc"] = "roc_auc"

    def score(self, field: MapField, context: MetricContext) -> Value:
        """Area under the ROC curve; equal values count half."""
        inside = self._reference(field, context)
        taken, hits = _sorted_hits(field, inside)
        zero = taken.new_zeros(1)
        rate = torch.cat([zero, hits]) / hits[-1]
        missed = taken - hits
        false = torch.cat([zero, missed]) / missed[-1]
        return Value(float(torch.trapezoid(rate, false)))


@register
class Auprc(Localization):
    """The mean precision while the mask is found; the lift is relative to chance."""

    chance: ClassVar[str] = "share of the mask"
    name: Literal["auprc"] = "auprc"

    def score(self, field: MapField, context: MetricContext) -> Value:
        """Average precision."""
        return average_precision(field, self._reference(field, context))


def average_precision(field: MapField, inside: Tensor) -> Value:
    """Area under the curve of precision over recall, with chance and lift.

    Args:
        field: The map.
        inside: What it should point at, ``(*spatial)`` bool, neither empty nor everything.
    """
    taken, hits = _sorted_hits(field, inside)
    gained = torch.cat([hits[:1], hits.diff()]) / hits[-1]
    value = float((gained * hits / taken).sum())
    share = float(inside.double().mean())
    return Value(value, facts={"chance": share, "lift": value / share})


@register
class MaxDice(Localization):
    """The best Dice of the mask with any of the map's top sets."""

    reference: ClassVar[str] = "Marchadour et al., INFORM study"
    name: Literal["max_dice"] = "max_dice"
    levels: int = Field(default=100, ge=1)

    def score(self, field: MapField, context: MetricContext) -> Value:
        """Maximum over top sets of 1 %, 2 %, ... of the voxels, and that of the mask's size.

        Without the latter no map could find a lesion that is much smaller than one level.
        """
        inside = self._reference(field, context)
        hits = inside.flatten()[field.order].double().cumsum(0)
        total, size = len(hits), int(hits[-1])
        counts = {max(1, round(total * level / self.levels)) for level in range(1, self.levels + 1)}
        points = [
            (count / total, 2 * float(hits[count - 1]) / (count + size))
            for count in sorted(counts | {size})
        ]
        share, best = max(points, key=lambda point: point[1])
        return Value(best, tuple(points), {"share": share})


@register
class PointingGame(Localization):
    """Whether the most relevant voxel lies in the mask, or near it.

    Zhang et al., 2018; the tolerance is in millimeters, at least one voxel diagonal.
    """

    chance: ClassVar[str] = "share of the dilated mask"
    reference: ClassVar[str] = "Zhang et al., 2018"
    name: Literal["pointing_game"] = "pointing_game"
    tolerance: float = Field(default=5.0, ge=0, description="mm")

    def score(self, field: MapField, context: MetricContext) -> Value:
        """1 or 0."""
        inside = self._reference(field, context)
        radius = max(self.tolerance, math.hypot(*sides(context)))
        near = around(inside, radius, context)
        hit = bool(near.flatten()[field.order[0]])
        return Value(float(hit), facts={"chance": float(near.double().mean())})


def around(inside: Tensor, radius: float, context: MetricContext) -> Tensor:
    """A set and what is at most ``radius`` millimeters from it, ``(*spatial)`` bool.

    Raises:
        Undefined: If that is everything, so that any map would lie in it.
    """
    near = dilated(inside, radius, context.spacing)
    if bool(near.all()):
        raise Undefined(f"the whole image lies within {radius:g} mm; ask with a smaller distance")
    return near


def sides(context: MetricContext) -> list[float]:
    """Millimeters from voxel to voxel, along the axes that have more than one."""
    pairs = zip(context.base.shape, context.spacing, strict=True)
    return [step for side, step in pairs if side > 1] or [0.0]


@register
class TopKIntersection(Localization):
    """The share of the map's top set that lies in the mask."""

    chance: ClassVar[str] = "share of the mask"
    name: Literal["top_k_intersection"] = "top_k_intersection"
    share: float | None = Field(default=None, gt=0, lt=1, description="absent: that of the mask")

    def score(self, field: MapField, context: MetricContext) -> Value:
        """Precision of the top set."""
        inside = self._reference(field, context)
        asked = self.share or float(inside.double().mean())
        count = max(1, round(asked * inside.numel()))
        hits = (top(field, count) & inside).sum()
        return Value(float(hits) / count, facts={"chance": float(inside.double().mean())})


@register
class RelevanceRankAccuracy(Localization):
    """The share of the mask that the top set of its size reaches.

    Arras et al., 2022.
    """

    chance: ClassVar[str] = "share of the mask"
    reference: ClassVar[str] = "Arras et al., 2022"
    name: Literal["relevance_rank_accuracy"] = "relevance_rank_accuracy"

    def score(self, field: MapField, context: MetricContext) -> Value:
        """Hits of the top |R| voxels over |R|."""
        inside = self._reference(field, context)
        count = int(inside.sum())
        return Value(float((top(field, count) & inside).sum()) / count)


@register
class IouAt(Localization):
    """Intersection over union of the mask with the top set of its size."""

    name: Literal["iou_at"] = "iou_at"

    def score(self, field: MapField, context: MetricContext) -> Value:
        """IoU."""
        inside = self._reference(field, context)
        chosen = top(field, int(inside.sum()))
        return Value(float((chosen & inside).sum()) / float((chosen | inside).sum()))


def _mass(field: MapField, inside: Tensor) -> float:
    total = float(field.positive.sum())
    if total <= 0:
        raise Undefined("the map has no positive value")
    return float(field.positive[inside].sum()) / total


@register
class RelevanceMassAccuracy(Localization):
    """The share of the positive evidence that lies in the mask.

    Arras et al., 2022; positives only, since a signed sum can be anything.
    """

    chance: ClassVar[str] = "share of the mask"
    reference: ClassVar[str] = "Arras et al., 2022"
    name: Literal["relevance_mass_accuracy"] = "relevance_mass_accuracy"

    def score(self, field: MapField, context: MetricContext) -> Value:
        """Positive sum inside over positive sum."""
        inside = self._reference(field, context)
        return Value(_mass(field, inside), facts={"chance": float(inside.double().mean())})


@register
class AttributionLocalization(Localization):
    """The positive evidence in the mask, relative to its size: 1 is chance.

    Kohlbrenner et al., 2020.
    """

    range: ClassVar[tuple[float | None, float | None]] = (0.0, None)
    chance: ClassVar[str] = "1"
    reference: ClassVar[str] = "Kohlbrenner et al., 2020"
    name: Literal["attribution_localization"] = "attribution_localization"

    def score(self, field: MapField, context: MetricContext) -> Value:
        """Mass accuracy over the share of the mask."""
        inside = self._reference(field, context)
        return Value(_mass(field, inside) / float(inside.double().mean()))


@register
class EnergyInDilatedMask(Localization):
    """The share of the positive evidence that lies in the mask or near it."""

    reference: ClassVar[str] = "Wang et al., 2020"
    name: Literal["energy_in_dilated_mask"] = "energy_in_dilated_mask"
    margin: float = Field(default=5.0, ge=0, description="mm")

    def score(self, field: MapField, context: MetricContext) -> Value:
        """Mass accuracy of the dilated mask."""
        inside = self._reference(field, context)
        near = around(inside, self.margin, context)
        return Value(_mass(field, near), facts={"chance": float(near.double().mean())})
