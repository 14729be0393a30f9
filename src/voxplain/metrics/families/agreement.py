"""Agreement: of methods with each other, and of networks that should have learned the same."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

import torch

from voxplain.engine.context import Context
from voxplain.metrics.context import MetricContext, Query
from voxplain.metrics.curves import rank_correlation, ranks
from voxplain.metrics.maps import MapField, Undefined
from voxplain.metrics.metric import Direction, Metric, Value, register
from voxplain.metrics.other_networks import Role
from voxplain.metrics.queries.other_network_maps import OtherNetworkMaps
from voxplain.metrics.randomization.permuted_labels import by_network, network_similarities
from voxplain.metrics.randomization.similarity import Measure


@register
class MethodAgreement(Metric):
    """How similarly the maps of the other methods rank the voxels.

    Mean Spearman correlation; every pair and Kendall's W of all methods in the facts.
    """

    family: ClassVar[str] = "agreement"
    direction: ClassVar[Direction] = "none"
    range: ClassVar[tuple[float | None, float | None]] = (-1.0, 1.0)
    name: Literal["method_agreement"] = "method_agreement"

    def score(self, field: MapField, context: MetricContext) -> Value:
        field.require_informative()
        others = [other for other in _informative_maps(context) if other.name != field.name]
        if not others:
            raise Undefined("there is no other map to compare with")
        correlations: dict[str, float] = {}
        for other in others:
            pair = tuple(sorted((field.name, other.name)))
            correlations[other.name] = context.cached(
                ("agreement", pair), partial(rank_correlation, field.values, other.values)
            )
        kendall = context.cached("kendall", lambda: _kendall(context))
        mean = sum(correlations.values()) / len(correlations)
        return Value(mean, facts={**correlations, "kendall_w": kendall})


def _informative_maps(context: MetricContext) -> list[MapField]:
    """The maps that have an order to compare: neither constant nor NaN anywhere."""

    def informative(field: MapField) -> bool:
        try:
            field.require_informative()
        except Undefined:
            return False
        return True

    return [field for field in context.fields.values() if informative(field)]


def _kendall(context: MetricContext) -> float:
    """Kendall's coefficient of concordance of all maps; 1 if all rank the voxels the same way."""
    rows = [ranks(field.values.flatten()) for field in _informative_maps(context)]
    raters, items = len(rows), len(rows[0])
    sums = torch.stack(rows).sum(dim=0)
    return float(12 * (sums - sums.mean()).square().sum() / (raters**2 * (items**3 - items)))


class _NetworkAgreement(Metric):
    """Compares the map with those of the same method for other networks and the same target."""

    family: ClassVar[str] = "agreement"
    direction: ClassVar[Direction] = "up"
    range: ClassVar[tuple[float | None, float | None]] = (-1.0, 1.0)
    differs: ClassVar[Role]
    measure: Measure = "spearman"

    def queries(self, context: Context) -> tuple[Query, ...]:
        """The maps of the networks that differ in this way, once for all methods."""
        return (OtherNetworkMaps(self.differs),)

    def score(self, field: MapField, context: MetricContext) -> Value:
        """Mean similarity over the other networks; each of them in the facts."""
        similarities = network_similarities(field, context, self.differs)
        values = by_network(similarities, self.measure)
        return Value(sum(values.values()) / len(values), facts=values)


@register
class SeedAgreement(_NetworkAgreement):
    """How similar the maps are of networks that differ by their training seed alone.

    The mean over the other networks; each of them in the facts.
    """

    differs: ClassVar[Role] = "seed"
    name: Literal["seed_agreement"] = "seed_agreement"


@register
class ArchitectureAgreement(_NetworkAgreement):
    """How similar the maps are of networks of different architecture.

    The mean over the other networks; each of them in the facts.
    """

    differs: ClassVar[Role] = "architecture"
    name: Literal["architecture_agreement"] = "architecture_agreement"
