"""Data randomization: maps of networks that were trained on permuted labels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal, get_args

from torch import Tensor

from voxplain.engine.context import Context
from voxplain.metrics.context import MetricContext, Query
from voxplain.metrics.map_field import MapField, Undefined
from voxplain.metrics.metric import Direction, Metric, Value, register
from voxplain.metrics.queries.other_network_maps import OtherNetworkMaps
from voxplain.metrics.randomization.measures import Measure
from voxplain.metrics.randomization.similarity import Similarity, similarity


@register
class DataRandomization(Metric):
    """How much of the map is there when the network was trained on permuted labels.

    Similarity with the map of such a network, for which there was nothing to learn (Adebayo et
    al., 2018).
    """

    family: ClassVar[str] = "randomization"
    direction: ClassVar[Direction] = "down"
    range: ClassVar[tuple[float | None, float | None]] = (-1.0, 1.0)
    reference: ClassVar[str] = "Adebayo et al., 2018"
    name: Literal["data_randomization"] = "data_randomization"
    similarity: Measure = "spearman"

    def queries(self, context: Context) -> tuple[Query, ...]:
        """The maps of the networks that learned nothing, once for all methods."""
        return (OtherNetworkMaps("labels"),)

    def score(self, field: MapField, context: MetricContext) -> Value:
        """The mean over those networks; each of them, and all measures, in the facts."""
        alike = _alike_with(field, context, self.queries(context.base)[0])
        values = _of_measure(alike, self.similarity)
        measures = {
            measure: sum(getattr(one, measure) for one in alike.values()) / len(alike)
            for measure in get_args(Measure)
        }
        return Value(_mean(values), facts={"networks": values, "measures": measures})


def _alike_with(field: MapField, context: MetricContext, query: Query) -> dict[str, Similarity]:
    """How alike a map and that of each other network are.

    Raises:
        Undefined: If the map says nothing, has no method behind it, or there is no such network.
    """
    field.checked  # noqa: B018 - raises for maps that say nothing
    found: dict[str, dict[str, Tensor]] = context.run_query(query, field)
    if not all(field.name in maps for maps in found.values()):
        raise Undefined("there is no method behind this map that could explain again")
    return {name: similarity(field.values, maps[field.name]) for name, maps in found.items()}


def _of_measure(alike: Mapping[str, Similarity], measure: Measure) -> dict[str, float]:
    values = {name: float(getattr(one, measure)) for name, one in alike.items()}
    for name, value in values.items():
        if not math.isfinite(value):
            raise Undefined(f"the map of the network {name} is constant, too small or not finite")
    return values


def _mean(values: Mapping[str, float]) -> float:
    return sum(values.values()) / len(values)
