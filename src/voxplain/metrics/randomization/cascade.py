"""Cascading randomization: what is left of a map when the network forgets what it learned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from voxplain.attribution.methods.smoothgrad import SmoothGrad
from voxplain.engine.acceleration.forward_trace import trace
from voxplain.engine.context import Context
from voxplain.engine.method import Method
from voxplain.metrics.context import MetricContext, Query
from voxplain.metrics.controls import edges
from voxplain.metrics.map_field import MapField
from voxplain.metrics.metric import Metric, metric_key
from voxplain.metrics.randomization.networks import (
    Kinship,
    Randomized,
    calibration_images,
    in_order,
    randomized,
)
from voxplain.metrics.randomization.stages import Order, grouped, stages
from voxplain.metrics.randomization.steps import Gathered, Steps
from voxplain.metrics.re_explain import explain_again, explain_networks
from voxplain.metrics.scoring import score_maps

_BYTES_ABREAST = 1024 * 2**20
"""What the maps and weights of networks side by side may take."""


@dataclass(frozen=True)
class Cascade(Query):
    """Maps of all methods while stage after stage loses its training.

    The networks of a seed are explained side by side: what runs before the first layer in which
    they differ runs once for all of them.

    Attributes:
        order: Which stages lose it first.
        steps: Stages are joined to at most so many steps.
        seeds: Repeats with other weights.
        smooth: Noisy copies over which maps are averaged; 0 for the maps themselves.
        pictures: Keep the maps of the first seed.
        metrics: Judge the maps of every step as well, each by asking the network of its step; an
            edge detector too, which stays the same while the network it is judged with does not.
    """

    explains: ClassVar[bool] = True

    order: Order = "top_down"
    steps: int = 12
    seeds: int = 3
    smooth: int = 0
    pictures: bool = False
    metrics: tuple[Metric, ...] = ()

    def expected(self, context: Context) -> int:
        """Explanations are counted in passes of their streams, not as forwards."""
        return self.steps * self.seeds * max(1, self.smooth)

    def run(self, context: MetricContext, field: MapField) -> dict[str, Steps]:
        """By the key of the method; with metrics, the ``edges`` beside them."""
        model, example = context.base.model, context.base.example
        methods = {method.key: self._method(method) for method in context.methods}
        ran = trace(model, example)
        groups = grouped(stages(model, example, ran), self.steps)
        found = explain_again(context, context.item.image[None], list(methods.values()))
        trained = self._reduced(methods, found, context)
        scores = self._scores(context, trained)
        gathered = {
            name: Gathered(map, scores[name], self.pictures) for name, map in trained.items()
        }
        for seed in range(self.seeds):
            networks = randomized(model, groups, self.order, seed, calibration_images(context))
            for part in _parts(networks, context, len(methods)):
                kinship = Kinship(ran, part, example)
                for name, map, judged in self._maps(context, part, methods, kinship):
                    gathered[name].add(seed, map, judged)
        random = self.order != "independent"  # whose last network is trained but for one stage
        ordered = in_order(groups, self.order)
        return {name: part.steps(ordered, random) for name, part in gathered.items()}

    def _method(self, method: Method) -> Method:
        if not self.smooth or method.noise() is not None:
            return method
        smoothed = {"of": method, "samples": self.smooth, "label": f"{method.key}, smooth"}
        return SmoothGrad.model_validate({"name": "smoothgrad", **smoothed})

    def _maps(
        self,
        context: MetricContext,
        networks: Sequence[Randomized],
        methods: Mapping[str, Method],
        kinship: Kinship,
    ) -> Iterator[tuple[str, Tensor, Mapping[str, float]]]:
        """Name, map and scores of every map of some networks."""
        contexts = [context.with_model(each.model) for each in networks]
        image = context.item.image[None]
        found = explain_networks(contexts, image, list(methods.values()), kinship)
        for asked, maps in zip(contexts, found, strict=True):
            reduced = self._reduced(methods, maps, asked)
            scores = self._scores(asked.with_own_prediction(), reduced) if self.metrics else {}
            for name, map in reduced.items():
                yield name, map, scores.get(name, {})

    def _reduced(
        self, methods: Mapping[str, Method], found: Mapping[str, Tensor], context: MetricContext
    ) -> dict[str, Tensor]:
        """The maps of one network by the key of the unsmoothed method, ``(*spatial)`` float64."""
        maps = {
            name: found[method.key][0].double().sum(dim=0)
            for name, method in methods.items()
            if method.key in found
        }
        if self.metrics:
            maps["edges"] = edges(context.item.image, context.spacing).double()
        return maps

    def _scores(
        self, context: MetricContext, maps: Mapping[str, Tensor]
    ) -> dict[str, dict[str, float]]:
        """What the metrics say of the maps of one network, by map and metric."""
        plain = MapField("edges", context.item.image, "positive", key=context.item.key)
        fields = {
            name: replace(context.fields.get(name, plain), map=map[None], completeness=None)
            for name, map in maps.items()
        }
        context = context.with_maps(fields)
        return {
            name: {
                metric_key(metric): score_maps(metric, field, context)[0].value
                for metric in self.metrics
            }
            for name, field in fields.items()
        }


def _parts(
    networks: Iterable[Randomized], context: MetricContext, methods: int
) -> Iterator[list[Randomized]]:
    """As many networks as fit beside each other."""
    weights = sum(part.nbytes for part in context.base.model.network.parameters())
    each = weights + 4 * (methods + 1) * context.item.image.nbytes
    most = max(1, _BYTES_ABREAST // each)
    part: list[Randomized] = []
    for network in networks:
        part.append(network)
        if len(part) == most:
            yield part
            part = []
    if part:
        yield part
