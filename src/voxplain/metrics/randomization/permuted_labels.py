"""Data randomization: the map of a network that was trained on permuted labels should differ."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal, get_args

from torch import Tensor

from voxplain.engine.context import Context
from voxplain.metrics.context import MetricContext, Query
from voxplain.metrics.maps import MapField, Undefined
from voxplain.metrics.metric import Direction, Metric, Value, register
from voxplain.metrics.other_networks import Role
from voxplain.metrics.queries.other_network_maps import OtherNetworkMaps
from voxplain.metrics.randomization.similarity import Measure, Similarity, similarity


@register
class DataRandomization(Metric):
    """How similar the map is to that of a network that was trained on permuted labels.

    From such labels there was nothing to learn (Adebayo et al., 2018).
    """

    family: ClassVar[str] = "randomization"
    direction: ClassVar[Direction] = "down"
    range: ClassVar[tuple[float | None, float | None]] = (-1.0, 1.0)
    reference: ClassVar[str] = "Adebayo et al., 2018"
    name: Literal["data_randomization"] = "data_randomization"
    similarity: Measure = "spearman"

    def queries(self, context: Context) -> tuple[Query, ...]:
        """The maps of these networks, once for all methods."""
        return (OtherNetworkMaps("labels"),)

    def score(self, field: MapField, context: MetricContext) -> Value:
        """The mean over these networks; each of them, and all measures, in the facts."""
        similarities = network_similarities(field, context, "labels")
        values = by_network(similarities, self.similarity)
        measures = {
            measure: sum(getattr(own, measure) for own in similarities.values()) / len(similarities)
            for measure in get_args(Measure)
        }
        mean = sum(values.values()) / len(values)
        return Value(mean, facts={"networks": values, "measures": measures})


def network_similarities(
    field: MapField, context: MetricContext, differs: Role
) -> dict[str, Similarity]:
    """By the name of another network, the similarity of its map with this map.

    Args:
        field: The map.
        context: Names the other networks.
        differs: How the other networks differ from the one under study.

    Raises:
        Undefined: If the map is constant or not finite, was made by no known method, or there is
            no such network.
    """
    field.require_informative()
    maps: dict[str, dict[str, Tensor]] = context.run_query(OtherNetworkMaps(differs))
    if not all(field.name in own for own in maps.values()):
        raise Undefined("this map has no method that could explain again")
    return {network: similarity(field.values, own[field.name]) for network, own in maps.items()}


def by_network(similarities: Mapping[str, Similarity], measure: Measure) -> dict[str, float]:
    """One measure of similarity by the name of the other network.

    Raises:
        Undefined: If it does not exist for one of the networks.
    """
    values = {network: float(getattr(own, measure)) for network, own in similarities.items()}
    for network, value in values.items():
        if not math.isfinite(value):
            raise Undefined(
                f"the map of the network {network} is constant, too small or not finite"
            )
    return values
