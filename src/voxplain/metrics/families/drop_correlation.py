"""Correlation of what a map assigns to regions with the drop of the score without them."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from voxplain.engine.context import Context
from voxplain.engine.masks import AnyFill, CaseFill, Mean, OneRegionOff
from voxplain.metrics.context import MetricContext, Query
from voxplain.metrics.curves import correlation, rank_correlation
from voxplain.metrics.families.infidelity import predicted_losses
from voxplain.metrics.maps import MapField, Undefined
from voxplain.metrics.metric import Direction, Metric, Value, register
from voxplain.metrics.queries.removal import Shares, region_sums
from voxplain.metrics.queries.subsets import RandomSubsets, SingleRegions, SubsetDrops
from voxplain.regions import RegionSpec, Supervoxels


class _RegionDrops(Metric):
    """Compares the losses that a map predicts for regions with the actual drops of the score."""

    family: ClassVar[str] = "faithfulness"
    direction: ClassVar[Direction] = "up"
    range: ClassVar[tuple[float | None, float | None]] = (-1.0, 1.0)
    chance: ClassVar[str] = "0"

    regions: RegionSpec = Supervoxels()
    fill: AnyFill = Mean()

    def _predicted(self, field: MapField, context: MetricContext, subsets: SubsetDrops) -> Tensor:
        """The loss of score that the map predicts for each region, ``(count,)``."""
        field.require_informative()
        axes = len(context.engine.shape)
        side = float(subsets.regions.sizes.double().mean()) ** (1 / axes)
        losses = predicted_losses(field, context, self.fill, (side,) * axes)
        return region_sums(subsets.regions, losses)


@register
class FaithfulnessCorrelation(_RegionDrops):
    """Whether subsets of regions to which the map assigns more cost the score more.

    Pearson correlation over random subsets of regions (Bhatt et al., 2020).
    """

    reference: ClassVar[str] = "Bhatt et al., 2020"
    name: Literal["faithfulness_correlation"] = "faithfulness_correlation"
    share: float = Field(default=0.2, gt=0, lt=1)
    draws: int = Field(default=100, ge=3)

    def queries(self, context: Context) -> tuple[Query, ...]:
        return (RandomSubsets(self.regions, self.fill, self.share, self.draws),)

    def score(self, field: MapField, context: MetricContext) -> Value:
        subsets: SubsetDrops = context.run_query(self.queries(context.engine)[0])
        predicted = subsets.removed.double() @ self._predicted(field, context, subsets)
        return Value(correlation(predicted, subsets.drops))


@register
class SensitivityN(_RegionDrops):
    """Whether subsets to which the map assigns more cost the score more, over subset sizes.

    Mean over the sizes of the Pearson correlation over random subsets (Ancona et al., 2018).
    """

    reference: ClassVar[str] = "Ancona et al., 2018"
    name: Literal["sensitivity_n"] = "sensitivity_n"
    shares: Shares = (0.05, 0.1, 0.2, 0.4, 0.8)
    draws: int = Field(default=50, ge=3)

    def queries(self, context: Context) -> tuple[Query, ...]:
        return tuple(
            RandomSubsets(self.regions, self.fill, share, self.draws) for share in self.shares
        )

    def score(self, field: MapField, context: MetricContext) -> Value:
        points = []
        for share, query in zip(self.shares, self.queries(context.engine), strict=True):
            subsets: SubsetDrops = context.run_query(query)
            predicted = subsets.removed.double() @ self._predicted(field, context, subsets)
            points.append((share, correlation(predicted, subsets.drops)))
        return Value(sum(y for _, y in points) / len(points), tuple(points))


@register
class FaithfulnessEstimate(_RegionDrops):
    """Whether regions to which the map assigns more cost the score more, one by one.

    Pearson correlation over the regions (Alvarez-Melis and Jaakkola, 2018).
    """

    reference: ClassVar[str] = "Alvarez-Melis and Jaakkola, 2018"
    name: Literal["faithfulness_estimate"] = "faithfulness_estimate"

    def queries(self, context: Context) -> tuple[Query, ...]:
        return (SingleRegions(self.regions, self.fill),)

    def score(self, field: MapField, context: MetricContext) -> Value:
        single: SubsetDrops = context.run_query(self.queries(context.engine)[0])
        return Value(correlation(self._predicted(field, context, single), single.drops))


@register
class NonSensitivity(_RegionDrops):
    """The share of regions that are irrelevant to the map or to the score, but not to both.

    A region is irrelevant to the map, or to the score, if its value is below `eps` of the largest
    one (Nguyen and Martínez, 2020).
    """

    direction: ClassVar[Direction] = "down"
    range: ClassVar[tuple[float | None, float | None]] = (0.0, 1.0)
    chance: ClassVar[str] = ""
    reference: ClassVar[str] = "Nguyen and Martínez, 2020"
    name: Literal["non_sensitivity"] = "non_sensitivity"
    eps: float = Field(default=1e-3, gt=0, description="of the largest value")

    def queries(self, context: Context) -> tuple[Query, ...]:
        return (SingleRegions(self.regions, self.fill),)

    def score(self, field: MapField, context: MetricContext) -> Value:
        single: SubsetDrops = context.run_query(self.queries(context.engine)[0])
        predicted, actual = self._predicted(field, context, single).abs(), single.drops.abs()
        if float(actual.amax()) == 0:
            raise Undefined("no region changes the score")
        irrelevant = [losses <= self.eps * losses.amax() for losses in (predicted, actual)]
        return Value(float((irrelevant[0] ^ irrelevant[1]).double().mean()))


@register
class MonotonicityCorrelation(_RegionDrops):
    """Whether regions of larger magnitude change the score more when other cases fill them.

    Spearman correlation of |a_r| and E[(S(x) - S(x with r from another case))^2] over the regions r
    (Nguyen and Martínez, 2020).
    """

    reference: ClassVar[str] = "Nguyen and Martínez, 2020"
    name: Literal["monotonicity_correlation"] = "monotonicity_correlation"
    fill: AnyFill = CaseFill(references=10)

    def queries(self, context: Context) -> tuple[Query, ...]:
        return (SquaredDrops(self.regions, self.fill),)

    def score(self, field: MapField, context: MetricContext) -> Value:
        squared: SubsetDrops = context.run_query(self.queries(context.engine)[0])
        predicted = self._predicted(field, context, squared).abs()
        return Value(rank_correlation(predicted, squared.drops))


class SquaredDrops(SingleRegions):
    """Mean square of the drops without each region, over the images of a fill."""

    def cost(self, context: Context) -> int:
        return super().cost(context) * self.fill.runs(None)

    def run(self, context: MetricContext) -> SubsetDrops:
        regions = context.engine.regions(self.regions, context.input)
        masks = OneRegionOff(self.regions).masks(context.input, context.engine)
        total = torch.zeros(regions.count, dtype=torch.float64)
        painters = self.fill.painters(context.input, masks)
        for painter in painters:
            predictions = context.predict_painted(painter, len(masks))
            total += (context.score - predictions.scores).square()
        removed = torch.eye(regions.count, dtype=torch.bool)
        return SubsetDrops(regions, removed, total / len(painters))
