"""Cascading randomization: maps while stage after stage of the network is randomized."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from voxplain.attribution.methods.smoothgrad import SmoothGrad
from voxplain.engine.acceleration.forward_trace import trace
from voxplain.engine.context import Context
from voxplain.engine.method import Method
from voxplain.engine.randomization.plain_weights import with_plain_weights
from voxplain.engine.randomization.stages import Order, grouped, stages
from voxplain.metrics.context import MetricContext, Query
from voxplain.metrics.controls import edges
from voxplain.metrics.maps import MapField
from voxplain.metrics.metric import BaseMetric, metric_key
from voxplain.metrics.randomization.randomized_networks import (
    RandomizedNetwork,
    UnchangedModules,
    calibration_images,
    in_order,
    randomized,
)
from voxplain.metrics.randomization.steps import StepCollector, Steps
from voxplain.metrics.re_explain import explain_again, explain_networks
from voxplain.metrics.scoring import value_or_reason

_BYTES_AT_ONCE = 1024 * 2**20
"""What the maps and weights of networks that are explained together may take."""


@dataclass(frozen=True)
class Cascade(Query):
    """Maps of all methods while stage after stage of the network is randomized.

    The networks of a seed are explained together: what runs before the first layer in which they
    differ runs once for all of them.

    Attributes:
        order: Which stages are randomized first.
        steps: Stages are joined to at most so many steps.
        seeds: Repeats with other random weights.
        smooth: Noisy copies over which maps are averaged; 0 for the maps themselves.
        pictures: Whether the maps of the first seed are kept.
        metrics: Score the maps of every step as well, each with the network of its step. The map
            of an edge detector is scored beside them; it is the same at every step.
    """

    explains: ClassVar[bool] = True

    order: Order = "top_down"
    steps: int = 12
    seeds: int = 3
    smooth: int = 0
    pictures: bool = False
    metrics: tuple[BaseMetric, ...] = ()

    def cost(self, context: Context) -> int:
        return self.steps * self.seeds * max(1, self.smooth)

    def run(self, context: MetricContext) -> dict[str, Steps]:
        """By the key of the method; with metrics, the ``edges`` beside them."""
        model, example = with_plain_weights(context.engine.model), context.engine.example
        methods = {method.key: self._smoothed(method) for method in context.methods}
        traced = trace(model, example)
        groups = grouped(stages(model, example, traced), self.steps)
        collectors = self._collectors(context, methods)
        for seed in range(self.seeds):
            networks = randomized(model, groups, self.order, seed, calibration_images(context))
            for batch in _batches(networks, context, len(methods)):
                shared = UnchangedModules(traced, batch, example)
                for name, values, scores in self._explained(context, batch, methods, shared):
                    collectors[name].add(seed, values, scores)
        fully_random = self.order != "independent"
        ordered = in_order(groups, self.order)
        return {
            name: collector.steps(ordered, fully_random) for name, collector in collectors.items()
        }

    def _smoothed(self, method: Method) -> Method:
        if not self.smooth or method.noise() is not None:
            return method
        settings = {"of": method, "samples": self.smooth, "label": f"{method.key}, smooth"}
        return SmoothGrad.model_validate({"name": "smoothgrad", **settings})

    def _collectors(
        self, context: MetricContext, methods: Mapping[str, Method]
    ) -> dict[str, StepCollector]:
        """One collector per map, with the map of the trained network."""
        maps = explain_again(context, context.input.image[None], list(methods.values()))
        trained = self._by_name(methods, maps, context)
        scores = self._scores(context, trained)
        return {
            name: StepCollector(values, scores[name], self.pictures)
            for name, values in trained.items()
        }

    def _explained(
        self,
        context: MetricContext,
        networks: Sequence[RandomizedNetwork],
        methods: Mapping[str, Method],
        shared: UnchangedModules,
    ) -> Iterator[tuple[str, Tensor, Mapping[str, float]]]:
        """Name, map and scores of every map of some networks."""
        contexts = [context.with_model(network.model) for network in networks]
        image = context.input.image[None]
        by_network = explain_networks(contexts, image, list(methods.values()), shared)
        for own_context, maps in zip(contexts, by_network, strict=True):
            named = self._by_name(methods, maps, own_context)
            scores = self._scores(own_context.with_own_prediction(), named) if self.metrics else {}
            for name, values in named.items():
                yield name, values, scores.get(name, {})

    def _by_name(
        self, methods: Mapping[str, Method], maps: Mapping[str, Tensor], context: MetricContext
    ) -> dict[str, Tensor]:
        """The maps of one network by the key of the unsmoothed method, ``(*spatial)`` float64."""
        named = {
            name: maps[method.key][0].double().sum(dim=0)
            for name, method in methods.items()
            if method.key in maps
        }
        if self.metrics:
            named["edges"] = edges(context.input.image, context.spacing).double()
        return named

    def _scores(
        self, context: MetricContext, maps: Mapping[str, Tensor]
    ) -> dict[str, dict[str, float]]:
        """The scores of the maps of one network, by map and metric."""
        edge_field = MapField("edges", context.input.image, "positive", key=context.input.key)
        fields = {
            name: replace(context.fields.get(name, edge_field), map=values[None], completeness=None)
            for name, values in maps.items()
        }
        context = context.with_maps(fields)
        scores: dict[str, dict[str, float]] = {name: {} for name in fields}
        for name, field in fields.items():
            for metric in self.metrics:
                (pending,) = metric.pending([field])
                scores[name][metric_key(metric)] = value_or_reason(pending, context)[0].value
        return scores


def _batches(
    networks: Iterable[RandomizedNetwork], context: MetricContext, methods: int
) -> Iterator[list[RandomizedNetwork]]:
    """As many networks at a time as fit in memory beside each other."""
    weights = sum(parameter.nbytes for parameter in context.engine.model.network.parameters())
    bytes_each = weights + 4 * (methods + 1) * context.input.image.nbytes
    most = max(1, _BYTES_AT_ONCE // bytes_each)
    batch: list[RandomizedNetwork] = []
    for network in networks:
        batch.append(network)
        if len(batch) == most:
            yield batch
            batch = []
    if batch:
        yield batch
