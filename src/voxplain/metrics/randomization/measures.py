"""Randomization as metrics: a map that survives it has not looked at the network."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from voxplain.engine.context import Context
from voxplain.metrics.context import MetricContext, Query
from voxplain.metrics.curves import area
from voxplain.metrics.map_field import MapField, Undefined
from voxplain.metrics.metric import Direction, Metric, Value, register
from voxplain.metrics.randomization.cascade import Cascade
from voxplain.metrics.randomization.networks import calibration_images, randomized
from voxplain.metrics.randomization.stages import Order, stages
from voxplain.metrics.randomization.steps import Steps
from voxplain.metrics.re_explain import explain_again

Measure = Literal["spearman", "spearman_absolute", "ssim", "hog"]


class Randomization(Metric):
    """What the metrics of this chapter share."""

    family: ClassVar[str] = "randomization"
    direction: ClassVar[Direction] = "down"
    range: ClassVar[tuple[float | None, float | None]] = (-1.0, 1.0)
    reference: ClassVar[str] = "Adebayo et al., 2018"


@register
class ParameterRandomization(Randomization):
    """How much of the map survives while the network forgets what it learned, layer by layer.

    Area under the similarity with the trained network's map; the value after the last step, and
    that of two random networks, in the facts.
    """

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
        """Area under the mean curve over the seeds, of the steps where there is a similarity."""
        field.checked  # noqa: B018 - raises for maps that say nothing
        found: dict[str, Steps] = context.run_query(self.queries(context.base)[0], field)
        if field.name not in found:
            raise Undefined("there is no method behind this map that could explain again")
        steps = found[field.name]
        rows = [[getattr(step, self.similarity) for step in curve] for curve in steps.curves]
        columns = list(zip(*rows, strict=True))
        last = len(columns) - 1
        points = [(n / last, _mean(list(column))) for n, column in enumerate(columns)]
        known = [(x, y) for x, y in points if math.isfinite(y)]
        if len(known) < 2:
            raise Undefined("the maps of the randomized networks are constant, or too small")
        facts = {
            "last": points[-1][1],
            "random_networks": _mean([getattr(pair, self.similarity) for pair in steps.chance]),
            "stages": [", ".join(stage) for stage in steps.stages],
            "seeds": rows,
            "measures": {measure: _in_short(steps, measure) for measure in get_args(Measure)},
        }
        along, curve = torch.tensor(known, dtype=torch.float64).unbind(1)
        return Value(area(curve, along) / float(along[-1] - along[0]), tuple(points), facts)


@register
class SmoothParameterRandomization(ParameterRandomization):
    """How much of a map averaged over noisy copies survives while the network forgets.

    Hedström et al., 2023.
    """

    reference: ClassVar[str] = "Hedström et al., 2023"
    name: Literal["smooth_parameter_randomization"] = "smooth_parameter_randomization"  # type: ignore[assignment]
    copies: int = Field(default=10, ge=2)

    @property
    def _copies(self) -> int:
        return self.copies


@register
class EfficientParameterRandomization(Randomization):
    """How much more disordered the map gets when the whole network is random.

    (H(random) - H(trained)) / H(trained), H the histogram entropy (Hedström et al., 2023).
    """

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
        before = _entropy(field.checked, self.bins)
        found: dict[str, list[Tensor]] = context.run_query(self.queries(context.base)[0], field)
        if field.name not in found:
            raise Undefined("there is no method behind this map that could explain again")
        if before == 0:
            raise Undefined("the histogram of the map has a single bin")
        after = [_entropy(map, self.bins) for map in found[field.name]]
        change = _mean([(value - before) / before for value in after])
        if math.isnan(change):
            raise Undefined("the maps of the random networks hold NaN or infinite values")
        return Value(change)


@dataclass(frozen=True)
class FullyRandom(Query):
    """Maps of networks that have forgotten everything.

    Attributes:
        seeds: How many networks.
    """

    explains: ClassVar[bool] = True

    seeds: int

    def expected(self, context: Context) -> int:
        """Explanations are counted in passes of their streams, not as forwards."""
        return self.seeds

    def run(self, context: MetricContext, field: MapField) -> dict[str, list[Tensor]]:
        """By the key of the method, a map ``(*spatial)`` per seed."""
        found: dict[str, list[Tensor]] = {}
        model, images = context.base.model, calibration_images(context)
        paths = stages(model, context.base.example)
        for seed in range(self.seeds):
            (random,) = randomized(model, [paths], "top_down", seed, images)
            maps = explain_again(context.with_model(random.model), context.item.image[None])
            for name, map in maps.items():
                found.setdefault(name, []).append(map[0].double().sum(dim=0))
        return found


def _in_short(steps: Steps, measure: str) -> dict[str, float]:
    """Mean over the randomized steps and the last one, and between two random networks.

    No measure alone can be trusted: a sign flip or a change of scale fools each.
    """
    rows = [[getattr(step, measure) for step in curve] for curve in steps.curves]
    columns = [_mean(list(column)) for column in zip(*rows, strict=True)]
    return {
        "mean": _mean(columns[1:]),
        "last": columns[-1],
        "random_networks": _mean([getattr(pair, measure) for pair in steps.chance]),
    }


def _entropy(map: Tensor, bins: int) -> float:
    """Entropy of the histogram of a map scaled to [0, 1], in nats."""
    values = map.double().cpu().numpy()
    low, high = values.min(), values.max()
    if not math.isfinite(high - low):
        return math.nan
    if high <= low:
        return 0.0
    counts, _ = np.histogram((values - low) / (high - low), bins=bins, range=(0, 1))
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def _mean(values: list[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else float("nan")
