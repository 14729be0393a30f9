"""Parameter randomization: a map that stays when the weights are randomized ignores the network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from voxplain.engine.context import Context
from voxplain.engine.randomization.plain_weights import with_plain_weights
from voxplain.engine.randomization.stages import Order, stages
from voxplain.metrics.context import MetricContext, Query
from voxplain.metrics.curves import area
from voxplain.metrics.maps import MapField, Undefined
from voxplain.metrics.metric import Direction, Metric, Value, register
from voxplain.metrics.randomization.cascade import Cascade
from voxplain.metrics.randomization.randomized_networks import calibration_images, randomized
from voxplain.metrics.randomization.similarity import Measure
from voxplain.metrics.randomization.steps import Steps
from voxplain.metrics.re_explain import explain_again


@register
class ParameterRandomization(Metric):
    """How much of the map stays while the weights are randomized, layer by layer.

    Area under the curve of similarity with the map of the trained network. The facts hold the
    similarity after the last step, and that between the maps of two random networks.
    """

    family: ClassVar[str] = "randomization"
    direction: ClassVar[Direction] = "down"
    range: ClassVar[tuple[float | None, float | None]] = (-1.0, 1.0)
    reference: ClassVar[str] = "Adebayo et al., 2018"
    name: Literal["parameter_randomization"] = "parameter_randomization"
    order: Order = "top_down"
    steps: int = Field(default=12, ge=1)
    seeds: int = Field(default=3, ge=1)
    similarity: Measure = "spearman"

    def queries(self, context: Context) -> tuple[Query, ...]:
        """One cascade for all methods."""
        return (Cascade(self.order, self.steps, self.seeds, self._copies),)

    @property
    def _copies(self) -> int:
        return 0

    def score(self, field: MapField, context: MetricContext) -> Value:
        """Area under the mean curve over the seeds, over the steps where there is a similarity."""
        field.require_informative()
        maps: dict[str, Steps] = context.run_query(self.queries(context.engine)[0])
        if field.name not in maps:
            raise Undefined("this map has no method that could explain again")
        steps = maps[field.name]
        curve = _mean_curve(steps, self.similarity)
        finite = [(x, y) for x, y in curve if math.isfinite(y)]
        if len(finite) < 2:
            raise Undefined("the maps of the randomized networks are constant or too small")
        x, y = torch.tensor(finite, dtype=torch.float64).unbind(1)
        facts = {
            "last": curve[-1][1],
            "random_networks": _between_random_networks(steps, self.similarity),
            "stages": [", ".join(stage) for stage in steps.stages],
            "seeds": _rows(steps, self.similarity),
            "measures": {measure: _in_short(steps, measure) for measure in get_args(Measure)},
        }
        return Value(area(y, x) / float(x[-1] - x[0]), tuple(curve), facts)


def _rows(steps: Steps, measure: str) -> list[list[float]]:
    """One measure of similarity per seed and step."""
    return [[getattr(step, measure) for step in curve] for curve in steps.curves]


def _mean_curve(steps: Steps, measure: str) -> list[tuple[float, float]]:
    """The mean over the seeds at each step, over the share of the steps taken."""
    means = [_finite_mean(column) for column in zip(*_rows(steps, measure), strict=True)]
    return [(step / (len(means) - 1), mean) for step, mean in enumerate(means)]


def _between_random_networks(steps: Steps, measure: str) -> float:
    return _finite_mean([getattr(pair, measure) for pair in steps.chance])


def _in_short(steps: Steps, measure: str) -> dict[str, float]:
    """Mean over the randomized steps, last step, and similarity between two random networks.

    A report shows this for all measures, since a sign flip or a change of scale fools each.
    """
    means = [mean for _, mean in _mean_curve(steps, measure)]
    return {
        "mean": _finite_mean(means[1:]),
        "last": means[-1],
        "random_networks": _between_random_networks(steps, measure),
    }


@register
class SmoothParameterRandomization(ParameterRandomization):
    """How much of a map averaged over noisy copies stays while the weights are randomized.

    Hedström et al., 2023.
    """

    reference: ClassVar[str] = "Hedström et al., 2023"
    name: Literal["smooth_parameter_randomization"] = "smooth_parameter_randomization"  # type: ignore[assignment]
    copies: int = Field(default=10, ge=2)

    @property
    def _copies(self) -> int:
        return self.copies


@register
class EfficientParameterRandomization(Metric):
    """How much more disordered the map gets when all weights are randomized.

    (H(random) - H(trained)) / H(trained), H the histogram entropy (Hedström et al., 2023).
    """

    family: ClassVar[str] = "randomization"
    direction: ClassVar[Direction] = "up"
    range: ClassVar[tuple[float | None, float | None]] = (-1.0, None)
    reference: ClassVar[str] = "Hedström et al., 2023"
    name: Literal["efficient_parameter_randomization"] = "efficient_parameter_randomization"
    seeds: int = Field(default=3, ge=1)
    bins: int = Field(default=100, ge=2)

    def queries(self, context: Context) -> tuple[Query, ...]:
        """All stages at once."""
        return (FullyRandom(self.seeds),)

    def score(self, field: MapField, context: MetricContext) -> Value:
        """The mean over the seeds."""
        before = _entropy(field.require_informative(), self.bins)
        maps: dict[str, list[Tensor]] = context.run_query(FullyRandom(self.seeds))
        if field.name not in maps:
            raise Undefined("this map has no method that could explain again")
        if before == 0:
            raise Undefined("the histogram of the map has a single bin")
        after = [_entropy(values, self.bins) for values in maps[field.name]]
        change = _finite_mean([(entropy - before) / before for entropy in after])
        if math.isnan(change):
            raise Undefined("the maps of the randomized networks hold NaN or infinite values")
        return Value(change)


@dataclass(frozen=True)
class FullyRandom(Query):
    """Maps of networks all of whose weights are randomized.

    Attributes:
        seeds: How many networks.
    """

    explains: ClassVar[bool] = True

    seeds: int

    def cost(self, context: Context) -> int:
        return self.seeds

    def run(self, context: MetricContext) -> dict[str, list[Tensor]]:
        """By the key of the method, a map ``(*spatial)`` per seed."""
        maps: dict[str, list[Tensor]] = {}
        images = calibration_images(context)
        model = with_plain_weights(context.engine.model)
        paths = stages(model, context.engine.example)
        for seed in range(self.seeds):
            (random,) = randomized(model, [paths], "top_down", seed, images)
            random_maps = explain_again(context.with_model(random.model), context.input.image[None])
            for name, values in random_maps.items():
                maps.setdefault(name, []).append(values[0].double().sum(dim=0))
        return maps


def _entropy(values: Tensor, bins: int) -> float:
    """Entropy of the histogram of a map scaled to [0, 1], in nats."""
    array = values.double().cpu().numpy()
    low, high = array.min(), array.max()
    if not math.isfinite(high - low):
        return math.nan
    if high <= low:
        return 0.0
    counts, _ = np.histogram((array - low) / (high - low), bins=bins, range=(0, 1))
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def _finite_mean(values: Sequence[float]) -> float:
    """The mean of the finite values; NaN if there are none."""
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else float("nan")
