"""Agreement: of methods with each other, and of networks that should have learned the same."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

import torch

from voxplain.engine.context import Context
from voxplain.metrics.context import MetricContext, Query
from voxplain.metrics.curves import rank_correlation, ranks
from voxplain.metrics.map_field import MapField, Undefined
from voxplain.metrics.metric import Direction, Metric, Value, register
from voxplain.metrics.other_networks import Role
from voxplain.metrics.queries.other_network_maps import OtherNetworkMaps
from voxplain.metrics.randomization.measures import Measure
from voxplain.metrics.randomization.other_trained import _alike_with, _mean, _of_measure


class _Agreement(Metric):
    family: ClassVar[str] = "agreement"
    direction: ClassVar[Direction] = "none"
    range: ClassVar[tuple[float | None, float | None]] = (-1.0, 1.0)


@register
class MethodAgreement(_Agreement):
    """How alike the order of voxels is in the maps of the other methods.

    Mean Spearman correlation; every pair and Kendall's W of all methods in the facts.
    """

    name: Literal["method_agreement"] = "method_agreement"

    def score(self, field: MapField, context: MetricContext) -> Value:
        """The mean over the other maps that say anything."""
        field.checked  # noqa: B018 - raises for maps that say nothing
        others = {each.name: each for each in _telling(context) if each.name != field.name}
        if not others:
            raise Undefined("there is no other map to agree with")
        found: dict[str, float] = {}
        for name, other in others.items():
            pair = tuple(sorted((field.name, name)))
            found[name] = context.cached(("agreement", pair), partial(_alike, field, other))
        together = context.cached("kendall", lambda: _kendall(context))
        mean = sum(found.values()) / len(found)
        return Value(mean, facts={**found, "kendall_w": together})


def _telling(context: MetricContext) -> list[MapField]:
    """The maps that have an order to compare with: neither constant nor NaN somewhere."""

    def tells(field: MapField) -> bool:
        try:
            return field.checked is not None
        except Undefined:
            return False

    return [each for each in context.fields.values() if tells(each)]


def _alike(field: MapField, other: MapField) -> float:
    return rank_correlation(field.checked, other.checked)


def _kendall(context: MetricContext) -> float:
    """Kendall's coefficient of concordance of all maps, 1 if all rank the voxels alike."""
    rows = [ranks(each.values.flatten()) for each in _telling(context)]
    raters, items = len(rows), len(rows[0])
    spread = torch.stack(rows).sum(dim=0)
    return float(12 * (spread - spread.mean()).square().sum() / (raters**2 * (items**3 - items)))


class _OfNetworks(_Agreement):
    """The same method on other networks, for the same target."""

    direction: ClassVar[Direction] = "up"
    differs: ClassVar[Role]
    measure: Measure = "spearman"

    def queries(self, context: Context) -> tuple[Query, ...]:
        """The maps of the networks that differ in this way, once for all methods."""
        return (OtherNetworkMaps(self.differs),)

    def score(self, field: MapField, context: MetricContext) -> Value:
        """Mean similarity with the maps of the other networks."""
        alike = _alike_with(field, context, self.queries(context.base)[0])
        values = _of_measure(alike, self.measure)
        return Value(_mean(values), facts=values)


@register
class SeedAgreement(_OfNetworks):
    """How alike the maps are of networks that differ by their training seed alone."""

    differs: ClassVar[Role] = "seed"
    name: Literal["seed_agreement"] = "seed_agreement"


@register
class ArchitectureAgreement(_OfNetworks):
    """How alike the maps are of networks of different architecture."""

    differs: ClassVar[Role] = "architecture"
    name: Literal["architecture_agreement"] = "architecture_agreement"


__all__ = ["ArchitectureAgreement", "MethodAgreement", "SeedAgreement"]
