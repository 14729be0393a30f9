"""Faithfulness: does the score follow the map when parts of the image are removed?"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from voxplain.engine.context import Context
from voxplain.engine.masks import AnyFill, Blur, Mean
from voxplain.metrics.context import MetricContext, Query
from voxplain.metrics.curves import area, normalized, require_fall
from voxplain.metrics.map_field import MapField, Undefined
from voxplain.metrics.metric import Direction, Metric, Value, register
from voxplain.metrics.perturbed import PerturbedPrediction
from voxplain.metrics.queries.removal import Order, RegionRemoval, Removal, shares
from voxplain.regions import RegionSpec, Supervoxels


class _Faithfulness(Metric):
    family: ClassVar[str] = "faithfulness"


class _Removing(_Faithfulness):
    """What metrics on curves of ranked removal have in common."""

    levels: int = Field(default=32, ge=1)
    fill: AnyFill = Blur()

    def _probe(self, order: Order) -> Removal:
        return Removal(self.fill, order, self.levels)

    def _curve(self, order: Order, field: MapField, context: MetricContext) -> Tensor:
        """The score relative to that of the image (1) and of the filled image (0)."""
        observed: PerturbedPrediction = context.run_query(self._probe(order), field)
        return normalized(observed.scores, context.whole, float(observed.scores[-1]))

    def _falling(self, order: Order, field: MapField, context: MetricContext) -> Tensor:
        """The same, where the filled image scores lower."""
        observed: PerturbedPrediction = context.run_query(self._probe(order), field)
        require_fall(context.whole, float(observed.scores[-1]))
        return self._curve(order, field, context)

    def _points(self, curve: Tensor) -> tuple[tuple[float, float], ...]:
        return tuple(zip(shares(self.levels), curve.tolist(), strict=True))


@register
class Deletion(_Removing):
    """How much of the score is left while the most relevant voxels are removed.

    Area under the normalized score over the removed share (Petsiuk et al., 2018).
    """

    direction: ClassVar[Direction] = "down"
    reference: ClassVar[str] = "Petsiuk et al., 2018"
    name: Literal["deletion"] = "deletion"

    def queries(self, context: Context) -> tuple[Query, ...]:
        """Removal, most relevant first."""
        return (self._probe("most"),)

    def score(self, field: MapField, context: MetricContext) -> Value:
        """Area under the curve."""
        curve = self._falling("most", field, context)
        return Value(area(curve), self._points(curve))


@register
class Insertion(_Removing):
    """How much of the score comes back while the most relevant voxels are shown first.

    Keeping the most relevant share t is removing the other 1 - t, least relevant first: the
    passes are those of the reversed order.
    """

    direction: ClassVar[Direction] = "up"
    reference: ClassVar[str] = "Petsiuk et al., 2018"
    name: Literal["insertion"] = "insertion"

    def queries(self, context: Context) -> tuple[Query, ...]:
        """Removal, least relevant first."""
        return (self._probe("least"),)

    def score(self, field: MapField, context: MetricContext) -> Value:
        """Area under the curve over the kept share."""
        curve = self._falling("least", field, context).flip(0)
        return Value(area(curve), self._points(curve))


@register
class MorfLerfGap(_Removing):
    """How much more the most relevant voxels cost than the least relevant ones.

    What both orders share, the reaction of the network to unnatural images, cancels. Relative to
    how far the scores of the image and of the filled image are apart, whichever is higher: about
    -1 to 1, and beyond where evidence against the target is removed.
    """

    direction: ClassVar[Direction] = "up"
    chance: ClassVar[str] = "0"
    reference: ClassVar[str] = "Rong et al., 2022"
    name: Literal["morf_lerf_gap"] = "morf_lerf_gap"

    def queries(self, context: Context) -> tuple[Query, ...]:
        """Both orders, shared with deletion and insertion."""
        return (self._probe("most"), self._probe("least"))

    def score(self, field: MapField, context: MetricContext) -> Value:
        """Difference of the areas."""
        most, least = (self._curve(order, field, context) for order in ("most", "least"))
        gap = self._fall(field, context) * (least - most)
        return Value(area(gap), self._points(gap))

    def _fall(self, field: MapField, context: MetricContext) -> float:
        """1 where filling lowers the score, -1 where it raises it."""
        observed: PerturbedPrediction = context.run_query(self._probe("most"), field)
        return math.copysign(1.0, context.whole - float(observed.scores[-1]))


@register
class PixelFlipping(_Removing):
    """The mean loss of score while the most relevant voxels are removed (AOPC)."""

    direction: ClassVar[Direction] = "up"
    unit: ClassVar[str] = "score"
    reference: ClassVar[str] = "Samek et al., 2016"
    name: Literal["pixel_flipping"] = "pixel_flipping"

    def queries(self, context: Context) -> tuple[Query, ...]:
        """Removal, most relevant first, shared with deletion."""
        return (self._probe("most"),)

    def score(self, field: MapField, context: MetricContext) -> Value:
        """Mean of S(x) - s(t) over the levels."""
        observed: PerturbedPrediction = context.run_query(self._probe("most"), field)
        drops = context.whole - observed.scores
        return Value(float(drops.mean()), self._points(drops))


@register
class Monotonicity(_Removing):
    """The share of steps that do not lower the score while relevant voxels are added."""

    direction: ClassVar[Direction] = "up"
    range: ClassVar[tuple[float | None, float | None]] = (0.0, 1.0)
    reference: ClassVar[str] = "Arya et al., 2019"
    name: Literal["monotonicity"] = "monotonicity"

    def queries(self, context: Context) -> tuple[Query, ...]:
        """Removal, least relevant first, shared with insertion."""
        return (self._probe("least"),)

    def score(self, field: MapField, context: MetricContext) -> Value:
        """Share of rises or equal scores, within rounding."""
        observed: PerturbedPrediction = context.run_query(self._probe("least"), field)
        steps = observed.scores.flip(0).diff()
        slack = 1e-6 * float(observed.scores.abs().amax())
        return Value(float((steps >= -slack).double().mean()))


class _Regional(_Faithfulness):
    regions: RegionSpec = Supervoxels()
    fill: AnyFill = Mean()


@register
class Irof(_Regional):
    """How fast the score falls when regions are removed in the order of their mean relevance.

    1 - area under the normalized score (Rieger and Hansen, 2020).
    """

    direction: ClassVar[Direction] = "up"
    reference: ClassVar[str] = "Rieger and Hansen, 2020"
    name: Literal["irof"] = "irof"
    levels: int | None = Field(default=None, ge=1, description="absent: one region at a time")

    def queries(self, context: Context) -> tuple[Query, ...]:
        """Regions in the order of the map."""
        return (RegionRemoval(self.regions, self.fill, "most", self.levels),)

    def score(self, field: MapField, context: MetricContext) -> Value:
        """1 - area under the curve."""
        removed, observed = context.run_query(self.queries(context.base)[0], field)
        scores = observed.scores
        require_fall(context.whole, float(scores[-1]))
        curve = normalized(scores, context.whole, float(scores[-1]))
        along = torch.tensor(removed, dtype=torch.float64)
        points = tuple(zip(removed, curve.tolist(), strict=True))
        return Value(1 - area(curve, along), points)


@register
class Selectivity(Irof):
    """How much of the score is left when regions are removed by relevance: 1 - IROF."""

    direction: ClassVar[Direction] = "down"
    reference: ClassVar[str] = "Montavon et al., 2018"
    name: Literal["selectivity"] = "selectivity"  # type: ignore[assignment]

    def score(self, field: MapField, context: MetricContext) -> Value:
        """Area under the curve."""
        irof = super().score(field, context)
        return Value(1 - irof.value, irof.curve)


@register
class RegionPerturbation(_Regional):
    """The mean loss of score while regions are removed by relevance (AOPC)."""

    direction: ClassVar[Direction] = "up"
    unit: ClassVar[str] = "score"
    reference: ClassVar[str] = "Samek et al., 2016"
    name: Literal["region_perturbation"] = "region_perturbation"
    levels: int | None = Field(default=32, ge=1)

    def queries(self, context: Context) -> tuple[Query, ...]:
        """Regions in the order of the map."""
        return (RegionRemoval(self.regions, self.fill, "most", self.levels),)

    def score(self, field: MapField, context: MetricContext) -> Value:
        """Mean of S(x) - s over the steps."""
        removed, observed = context.run_query(self.queries(context.base)[0], field)
        drops = context.whole - observed.scores
        return Value(float(drops.mean()), tuple(zip(removed, drops.tolist(), strict=True)))


__all__ = [
    "Deletion",
    "Insertion",
    "Irof",
    "Monotonicity",
    "MorfLerfGap",
    "PixelFlipping",
    "RegionPerturbation",
    "Selectivity",
    "Undefined",
]
