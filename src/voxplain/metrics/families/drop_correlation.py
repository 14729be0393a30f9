"""Correlation of attributed sums with the drops of the score."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from voxplain.engine.context import Context
from voxplain.engine.masks import AnyFill, Case, Mean, OneRegionOff
from voxplain.metrics.context import MetricContext, Query
from voxplain.metrics.curves import correlation, rank_correlation
from voxplain.metrics.families.infidelity import _lost
from voxplain.metrics.map_field import MapField, Undefined
from voxplain.metrics.metric import Direction, Metric, Value, register
from voxplain.metrics.queries.removal import Shares, sums
from voxplain.metrics.queries.subsets import RandomSubsets, SingleRegions, SubsetDrops
from voxplain.regions import RegionSpec, Supervoxels


class _OverRegions(Metric):
    family: ClassVar[str] = "faithfulness"
    direction: ClassVar[Direction] = "up"
    range: ClassVar[tuple[float | None, float | None]] = (-1.0, 1.0)
    chance: ClassVar[str] = "0"

    regions: RegionSpec = Supervoxels()
    fill: AnyFill = Mean()

    def _said(self, field: MapField, context: MetricContext, run_query: SubsetDrops) -> Tensor:
        """What the map assigns to each region, ``(count,)``."""
        field.checked  # noqa: B018 - raises for maps that say nothing
        size = (float(run_query.regions.sizes.double().mean()) ** (1 / len(context.base.shape)),)
        lost = _lost(field, context, self.fill, size * len(context.base.shape))
        return sums(run_query.regions, lost)


@register
class FaithfulnessCorrelation(_OverRegions):
    """Whether subsets to which the map assigns more cost the score more.

    Pearson correlation over random subsets of regions (Bhatt et al., 2020).
    """

    reference: ClassVar[str] = "Bhatt et al., 2020"
    name: Literal["faithfulness_correlation"] = "faithfulness_correlation"
    share: float = Field(default=0.2, gt=0, lt=1)
    draws: int = Field(default=100, ge=3)

    def queries(self, context: Context) -> tuple[Query, ...]:
        """One set of subsets for all maps."""
        return (RandomSubsets(self.regions, self.fill, self.share, self.draws),)

    def score(self, field: MapField, context: MetricContext) -> Value:
        """Correlation of sums and drops."""
        run_query: SubsetDrops = context.run_query(self.queries(context.base)[0], field)
        said = run_query.removed.double() @ self._said(field, context, run_query)
        return Value(correlation(said, run_query.drops))


@register
class SensitivityN(_OverRegions):
    """Whether subsets to which the map assigns more cost the score more, over subset sizes.

    Ancona et al., 2018.
    """

    reference: ClassVar[str] = "Ancona et al., 2018"
    name: Literal["sensitivity_n"] = "sensitivity_n"
    shares: Shares = (0.05, 0.1, 0.2, 0.4, 0.8)
    draws: int = Field(default=50, ge=3)

    def queries(self, context: Context) -> tuple[Query, ...]:
        """One set of subsets per size."""
        return tuple(
            RandomSubsets(self.regions, self.fill, share, self.draws) for share in self.shares
        )

    def score(self, field: MapField, context: MetricContext) -> Value:
        """Mean correlation over the sizes."""
        points = []
        for share, query in zip(self.shares, self.queries(context.base), strict=True):
            run_query: SubsetDrops = context.run_query(query, field)
            said = run_query.removed.double() @ self._said(field, context, run_query)
            points.append((share, correlation(said, run_query.drops)))
        return Value(sum(y for _, y in points) / len(points), tuple(points))


@register
class FaithfulnessEstimate(_OverRegions):
    """Whether regions to which the map assigns more cost the score more, one by one.

    Alvarez-Melis and Jaakkola, 2018.
    """

    reference: ClassVar[str] = "Alvarez-Melis and Jaakkola, 2018"
    name: Literal["faithfulness_estimate"] = "faithfulness_estimate"

    def queries(self, context: Context) -> tuple[Query, ...]:
        """Every region alone, once for all maps."""
        return (SingleRegions(self.regions, self.fill),)

    def score(self, field: MapField, context: MetricContext) -> Value:
        """Correlation over the regions."""
        run_query: SubsetDrops = context.run_query(self.queries(context.base)[0], field)
        return Value(correlation(self._said(field, context, run_query), run_query.drops))


@register
class NonSensitivity(_OverRegions):
    """The share of regions where only one of map and score says that they do not matter.

    Nguyen and Martínez, 2020.
    """

    direction: ClassVar[Direction] = "down"
    range: ClassVar[tuple[float | None, float | None]] = (0.0, 1.0)
    chance: ClassVar[str] = ""
    reference: ClassVar[str] = "Nguyen and Martínez, 2020"
    name: Literal["non_sensitivity"] = "non_sensitivity"
    eps: float = Field(default=1e-3, gt=0, description="of the largest value")

    def queries(self, context: Context) -> tuple[Query, ...]:
        """Every region alone, shared with the faithfulness estimate."""
        return (SingleRegions(self.regions, self.fill),)

    def score(self, field: MapField, context: MetricContext) -> Value:
        """Share of disagreements."""
        run_query: SubsetDrops = context.run_query(self.queries(context.base)[0], field)
        said, lost = self._said(field, context, run_query).abs(), run_query.drops.abs()
        if float(lost.amax()) == 0:
            raise Undefined("no region changes the score")
        silent = said <= self.eps * said.amax()
        idle = lost <= self.eps * lost.amax()
        return Value(float((silent ^ idle).double().mean()))


@register
class MonotonicityCorrelation(_OverRegions):
    """Whether regions of larger magnitude change the score more when other cases fill them.

    Spearman correlation of |a_r| and E[(S(x) - S(x with r from another case))^2] (Nguyen and
    Martínez, 2020).
    """

    reference: ClassVar[str] = "Nguyen and Martínez, 2020"
    name: Literal["monotonicity_correlation"] = "monotonicity_correlation"
    fill: AnyFill = Case(references=10)

    def queries(self, context: Context) -> tuple[Query, ...]:
        """Every region alone, once per other case."""
        return (SquaredDrops(self.regions, self.fill),)

    def score(self, field: MapField, context: MetricContext) -> Value:
        """Rank correlation over the regions."""
        run_query: SubsetDrops = context.run_query(self.queries(context.base)[0], field)
        said = self._said(field, context, run_query).abs()
        return Value(rank_correlation(said, run_query.drops))


class SquaredDrops(SingleRegions):
    """Mean square of the drops over the images of a fill."""

    def expected(self, context: Context) -> int:
        """One per region and fill image."""
        return OneRegionOff(self.regions).expected(context) * self.fill.runs(None)

    def run(self, context: MetricContext, field: MapField) -> SubsetDrops:
        """The squares, averaged over the fill images."""
        regions = context.base.regions(self.regions, context.item)
        masks = OneRegionOff(self.regions).masks(context.item, context.base)
        total = torch.zeros(regions.count, dtype=torch.float64)
        painters = self.fill.painters(context.item, masks)
        for painter in painters:
            observed = context.painted(painter, len(masks))
            total += (context.whole - observed.scores).square()
        removed = torch.eye(regions.count, dtype=torch.bool)
        return SubsetDrops(regions, removed, total / len(painters))
