"""Localization: does the map point at the reference mask? No forward is needed."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from voxplain.engine import truth
from voxplain.metrics.context import MetricContext
from voxplain.metrics.maps import MapField, Undefined
from voxplain.metrics.metric import Direction, Metric, Value, register
from voxplain.metrics.queries.voxel_sets import dilated


class Localization(Metric):
    """A comparison of the map with the reference mask."""

    family: ClassVar[str] = "localization"
    direction: ClassVar[Direction] = "up"
    range: ClassVar[tuple[float | None, float | None]] = (0.0, 1.0)

    def _reference(self, field: MapField, context: MetricContext) -> Tensor:
        """The reference mask, ``(*spatial)`` bool.

        Raises:
            Undefined: If the map is not informative, or there is no mask, or it is empty or
                everything.
        """
        field.require_informative()
        if context.reference is None:
            raise Undefined("there is no reference mask")
        inside = context.reference.to(field.values.device)
        compared = context.counted(inside)
        if not bool(compared.any()) or bool(compared.all()):
            raise Undefined("the reference mask is empty or fills the image")
        return inside

    def _compared(self, field: MapField, context: MetricContext) -> tuple[MapField, Tensor]:
        """The map and the reference mask, without the voxels that the reference ignores."""
        inside = self._reference(field, context)
        return compared_part(field, context), context.counted(inside)


def compared_part(field: MapField, context: MetricContext) -> MapField:
    """The map without the voxels that the reference ignores, ``(C, n)`` if there are any."""
    if context.ignored is None:
        return field
    return replace(field, map=context.counted(field.map), start=None)


def most_relevant(field: MapField, count: int) -> Tensor:
    """The ``count`` most relevant voxels, ``(*spatial)`` bool; equal values in random order."""
    chosen = torch.zeros(field.values.numel(), dtype=torch.bool, device=field.values.device)
    chosen[field.order[:count]] = True
    return chosen.view(field.values.shape)


@register
class RocAuc(Localization):
    """How often a voxel inside the mask ranks above one outside: 0.5 is chance.

    Area under the ROC curve; equal values count half.
    """

    chance: ClassVar[str] = "0.5"
    name: Literal["roc_auc"] = "roc_auc"

    def score(self, field: MapField, context: MetricContext) -> Value:
        field, inside = self._compared(field, context)
        return Value(truth.roc_auc(field.values, inside))


@register
class Auprc(Localization):
    """The mean precision over the recall of the mask (average precision).

    The facts hold the value by chance, and the lift: the value relative to it.
    """

    chance: ClassVar[str] = "share of the mask"
    name: Literal["auprc"] = "auprc"

    def score(self, field: MapField, context: MetricContext) -> Value:
        return average_precision(*self._compared(field, context))


def average_precision(field: MapField, inside: Tensor) -> Value:
    """Area under the curve of precision over recall, with chance and lift in the facts.

    Args:
        field: The map.
        inside: Where it should point, ``(*spatial)`` bool, neither empty nor everything.
    """
    value = truth.average_precision(field.values, inside)
    share = float(inside.double().mean())
    return Value(value, facts={"chance": share, "lift": value / share})


@register
class MaxDice(Localization):
    """The best Dice of the mask with any number of most relevant voxels.

    Maximum over the most relevant 1 %, 2 %, ... of the voxels, and over the set of the size of the
    mask: without the latter no map could find a lesion much smaller than one level.
    """

    reference: ClassVar[str] = "Marchadour et al., INFORM study"
    name: Literal["max_dice"] = "max_dice"
    levels: int = Field(default=100, ge=1)

    def score(self, field: MapField, context: MetricContext) -> Value:
        field, inside = self._compared(field, context)
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
    """Whether the most relevant voxel lies in the mask or near it: 1 or 0.

    The tolerance is in millimeters, at least one voxel diagonal (Zhang et al., 2018).
    """

    chance: ClassVar[str] = "share of the dilated mask"
    reference: ClassVar[str] = "Zhang et al., 2018"
    name: Literal["pointing_game"] = "pointing_game"
    tolerance: float = Field(default=5.0, ge=0, description="mm")

    def score(self, field: MapField, context: MetricContext) -> Value:
        inside = self._reference(field, context)
        radius = max(self.tolerance, math.hypot(*voxel_sides(context)))
        near = context.counted(near_mask(inside, radius, context))
        field = compared_part(field, context)
        hit = bool(near.flatten()[field.order[0]])
        return Value(float(hit), facts={"chance": float(near.double().mean())})


def near_mask(inside: Tensor, radius: float, context: MetricContext) -> Tensor:
    """All voxels at most ``radius`` millimeters from a set, ``(*spatial)`` bool.

    Raises:
        Undefined: If these are all voxels, so that any map would lie in them.
    """
    near = dilated(inside, radius, context.spacing)
    if bool(near.all()):
        raise Undefined(f"the whole image lies within {radius:g} mm; choose a smaller distance")
    return near


def voxel_sides(context: MetricContext) -> list[float]:
    """Millimeters per voxel along the axes that have more than one voxel."""
    axes = zip(context.engine.shape, context.spacing, strict=True)
    return [spacing for count, spacing in axes if count > 1] or [0.0]


@register
class TopKIntersection(Localization):
    """The share of the most relevant voxels that lies in the mask."""

    chance: ClassVar[str] = "share of the mask"
    name: Literal["top_k_intersection"] = "top_k_intersection"
    share: float | None = Field(default=None, gt=0, lt=1, description="absent: that of the mask")

    def score(self, field: MapField, context: MetricContext) -> Value:
        field, inside = self._compared(field, context)
        share = self.share or float(inside.double().mean())
        count = max(1, round(share * inside.numel()))
        hits = (most_relevant(field, count) & inside).sum()
        return Value(float(hits) / count, facts={"chance": float(inside.double().mean())})


@register
class RelevanceRankAccuracy(Localization):
    """The share of the mask among the most relevant voxels, as many as the mask has.

    Hits among the |R| most relevant voxels over the size |R| of the mask (Arras et al., 2022).
    """

    chance: ClassVar[str] = "share of the mask"
    reference: ClassVar[str] = "Arras et al., 2022"
    name: Literal["relevance_rank_accuracy"] = "relevance_rank_accuracy"

    def score(self, field: MapField, context: MetricContext) -> Value:
        field, inside = self._compared(field, context)
        count = int(inside.sum())
        return Value(float((most_relevant(field, count) & inside).sum()) / count)


@register
class IouAt(Localization):
    """Intersection over union of the mask and the most relevant voxels, as many as the mask has."""

    name: Literal["iou_at"] = "iou_at"

    def score(self, field: MapField, context: MetricContext) -> Value:
        field, inside = self._compared(field, context)
        chosen = most_relevant(field, int(inside.sum()))
        return Value(float((chosen & inside).sum()) / float((chosen | inside).sum()))


def _evidence_share(field: MapField, inside: Tensor) -> float:
    """The share of the positive values that lies inside."""
    total = float(field.positive.sum())
    if total <= 0:
        raise Undefined("the map has no positive value")
    return float(field.positive[inside].sum()) / total


@register
class RelevanceMassAccuracy(Localization):
    """The share of the positive evidence that lies in the mask.

    Positive values only, since a signed sum can be anything (Arras et al., 2022).
    """

    chance: ClassVar[str] = "share of the mask"
    reference: ClassVar[str] = "Arras et al., 2022"
    name: Literal["relevance_mass_accuracy"] = "relevance_mass_accuracy"

    def score(self, field: MapField, context: MetricContext) -> Value:
        field, inside = self._compared(field, context)
        return Value(
            _evidence_share(field, inside), facts={"chance": float(inside.double().mean())}
        )


@register
class AttributionLocalization(Localization):
    """The positive evidence in the mask, relative to the size of the mask: 1 is chance.

    The share of the evidence in the mask over the share of the image that it covers (Kohlbrenner
    et al., 2020).
    """

    range: ClassVar[tuple[float | None, float | None]] = (0.0, None)
    chance: ClassVar[str] = "1"
    reference: ClassVar[str] = "Kohlbrenner et al., 2020"
    name: Literal["attribution_localization"] = "attribution_localization"

    def score(self, field: MapField, context: MetricContext) -> Value:
        field, inside = self._compared(field, context)
        return Value(_evidence_share(field, inside) / float(inside.double().mean()))


@register
class EnergyInDilatedMask(Localization):
    """The share of the positive evidence that lies in the mask or at most a margin away."""

    reference: ClassVar[str] = "Wang et al., 2020"
    name: Literal["energy_in_dilated_mask"] = "energy_in_dilated_mask"
    margin: float = Field(default=5.0, ge=0, description="mm")

    def score(self, field: MapField, context: MetricContext) -> Value:
        inside = self._reference(field, context)
        near = context.counted(near_mask(inside, self.margin, context))
        field = compared_part(field, context)
        return Value(_evidence_share(field, near), facts={"chance": float(near.double().mean())})
