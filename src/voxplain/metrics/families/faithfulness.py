"""Faithfulness: does the score follow the map when parts of the image are removed?"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from voxplain.engine.context import Context
from voxplain.engine.masks import AnyFill, Blur, Mean
from voxplain.metrics.context import MapQuery, MetricContext
from voxplain.metrics.curves import area, normalized, require_fall
from voxplain.metrics.maps import MapField
from voxplain.metrics.metric import Direction, Metric, Value, register
from voxplain.metrics.queries.removal import Order, RegionRemoval, Removal, shares
from voxplain.regions import RegionSpec, Supervoxels


class _VoxelCurve(Metric):
    """Scores while voxels are removed in the order of the map."""

    family: ClassVar[str] = "faithfulness"

    levels: int = Field(default=32, ge=1)
    fill: AnyFill = Blur()

    def _removal(self, order: Order) -> Removal:
        return Removal(self.fill, order, self.levels)

    def _scores(self, order: Order, field: MapField, context: MetricContext) -> Tensor:
        """S after each step, the unchanged image first, ``(levels + 1,)``."""
        scores: Tensor = context.run_map_query(self._removal(order), field).scores
        return scores

    def _curve(self, order: Order, field: MapField, context: MetricContext) -> Tensor:
        """The score relative to that of the image (1) and of the filled image (0)."""
        scores = self._scores(order, field, context)
        return normalized(scores, context.score, float(scores[-1]))

    def _falling_curve(self, order: Order, field: MapField, context: MetricContext) -> Tensor:
        """The same, undefined where the filled image scores higher."""
        require_fall(context.score, float(self._scores(order, field, context)[-1]))
        return self._curve(order, field, context)

    def _points(self, curve: Tensor) -> tuple[tuple[float, float], ...]:
        return tuple(zip(shares(self.levels), curve.tolist(), strict=True))


@register
class Deletion(_VoxelCurve):
    """How much of the score is left while the most relevant voxels are removed.

    Area under the normalized score over the removed share (Petsiuk et al., 2018).
    """

    direction: ClassVar[Direction] = "down"
    reference: ClassVar[str] = "Petsiuk et al., 2018"
    name: Literal["deletion"] = "deletion"

    def queries(self, context: Context) -> tuple[MapQuery, ...]:
        return (self._removal("most"),)

    def score(self, field: MapField, context: MetricContext) -> Value:
        curve = self._falling_curve("most", field, context)
        return Value(area(curve), self._points(curve))


@register
class Insertion(_VoxelCurve):
    """How much of the score comes back while the most relevant voxels are inserted first.

    Area under the normalized score over the inserted share (Petsiuk et al., 2018). Inserting the
    most relevant share t is removing the other 1 - t, the least relevant first, so that it shares
    its forwards with other metrics of that order.
    """

    direction: ClassVar[Direction] = "up"
    reference: ClassVar[str] = "Petsiuk et al., 2018"
    name: Literal["insertion"] = "insertion"

    def queries(self, context: Context) -> tuple[MapQuery, ...]:
        return (self._removal("least"),)

    def score(self, field: MapField, context: MetricContext) -> Value:
        curve = self._falling_curve("least", field, context).flip(0)
        return Value(area(curve), self._points(curve))


@register
class MorfLerfGap(_VoxelCurve):
    """How much more the most relevant voxels cost than the least relevant ones.

    Area between the score curves of removal with the least (LeRF) and with the most relevant first
    (MoRF). What both orders share, the reaction of the network to unnatural images, cancels. It is
    relative to the difference between the scores of the image and of the filled image, whichever
    is higher: about -1 to 1, and beyond where evidence against the target is removed.
    """

    direction: ClassVar[Direction] = "up"
    chance: ClassVar[str] = "0"
    reference: ClassVar[str] = "Rong et al., 2022"
    name: Literal["morf_lerf_gap"] = "morf_lerf_gap"

    def queries(self, context: Context) -> tuple[MapQuery, ...]:
        return (self._removal("most"), self._removal("least"))

    def score(self, field: MapField, context: MetricContext) -> Value:
        most, least = (self._curve(order, field, context) for order in ("most", "least"))
        filled_score = float(self._scores("most", field, context)[-1])
        gap = math.copysign(1.0, context.score - filled_score) * (least - most)
        return Value(area(gap), self._points(gap))


@register
class PixelFlipping(_VoxelCurve):
    """The mean loss of score while the most relevant voxels are removed (AOPC).

    The mean of S(x) - s(t) over the steps t.
    """

    direction: ClassVar[Direction] = "up"
    unit: ClassVar[str] = "score"
    reference: ClassVar[str] = "Samek et al., 2016"
    name: Literal["pixel_flipping"] = "pixel_flipping"

    def queries(self, context: Context) -> tuple[MapQuery, ...]:
        return (self._removal("most"),)

    def score(self, field: MapField, context: MetricContext) -> Value:
        drops = context.score - self._scores("most", field, context)
        return Value(float(drops.mean()), self._points(drops))


@register
class Monotonicity(_VoxelCurve):
    """The share of steps that do not lower the score while relevant voxels are added.

    Equal scores, within rounding, do not count as lower.
    """

    direction: ClassVar[Direction] = "up"
    range: ClassVar[tuple[float | None, float | None]] = (0.0, 1.0)
    reference: ClassVar[str] = "Arya et al., 2019"
    name: Literal["monotonicity"] = "monotonicity"

    def queries(self, context: Context) -> tuple[MapQuery, ...]:
        return (self._removal("least"),)

    def score(self, field: MapField, context: MetricContext) -> Value:
        scores = self._scores("least", field, context)
        rounding = 1e-6 * float(scores.abs().amax())
        return Value(float((scores.flip(0).diff() >= -rounding).double().mean()))


class _RegionCurve(Metric):
    """Scores while regions are removed in the order of their mean relevance."""

    family: ClassVar[str] = "faithfulness"

    regions: RegionSpec = Supervoxels()
    fill: AnyFill = Mean()
    levels: int | None

    def queries(self, context: Context) -> tuple[MapQuery, ...]:
        return (RegionRemoval(self.regions, self.fill, "most", self.levels),)

    def _scores(self, field: MapField, context: MetricContext) -> tuple[list[float], Tensor]:
        """The removed share of the regions, and S, after each step."""
        removed, predictions = context.run_map_query(self.queries(context.engine)[0], field)
        return removed, predictions.scores


@register
class Irof(_RegionCurve):
    """How fast the score falls when regions are removed in the order of their mean relevance.

    1 - area under the normalized score (Rieger and Hansen, 2020).
    """

    direction: ClassVar[Direction] = "up"
    reference: ClassVar[str] = "Rieger and Hansen, 2020"
    name: Literal["irof"] = "irof"
    levels: int | None = Field(default=None, ge=1, description="absent: one region at a time")

    def score(self, field: MapField, context: MetricContext) -> Value:
        removed, scores = self._scores(field, context)
        require_fall(context.score, float(scores[-1]))
        curve = normalized(scores, context.score, float(scores[-1]))
        points = tuple(zip(removed, curve.tolist(), strict=True))
        return Value(1 - area(curve, torch.tensor(removed, dtype=torch.float64)), points)


@register
class Selectivity(Irof):
    """How much of the score is left when regions are removed by relevance: 1 - IROF."""

    direction: ClassVar[Direction] = "down"
    reference: ClassVar[str] = "Montavon et al., 2018"
    name: Literal["selectivity"] = "selectivity"  # type: ignore[assignment]

    def score(self, field: MapField, context: MetricContext) -> Value:
        irof = super().score(field, context)
        return Value(1 - irof.value, irof.curve)


@register
class RegionPerturbation(_RegionCurve):
    """The mean loss of score while regions are removed by relevance (AOPC).

    The mean of S(x) - s over the steps.
    """

    direction: ClassVar[Direction] = "up"
    unit: ClassVar[str] = "score"
    reference: ClassVar[str] = "Samek et al., 2016"
    name: Literal["region_perturbation"] = "region_perturbation"
    levels: int | None = Field(default=32, ge=1)

    def score(self, field: MapField, context: MetricContext) -> Value:
        removed, scores = self._scores(field, context)
        drops = context.score - scores
        return Value(float(drops.mean()), tuple(zip(removed, drops.tolist(), strict=True)))
