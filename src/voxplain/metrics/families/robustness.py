"""Robustness: does the map stay the same when the image changes a little?"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, get_args

import torch
from pydantic import Field
from torch import Tensor

from voxplain.engine.context import Context
from voxplain.engine.variants.perturbations import MEDICAL, Change, Perturbation, UniformNoise
from voxplain.metrics.context import MetricContext, Query
from voxplain.metrics.curves import rank_correlation
from voxplain.metrics.maps import MapField, Undefined
from voxplain.metrics.metric import Direction, Metric, Value, register
from voxplain.metrics.re_explain import explain_again

_NEIGHBORS_BYTES = 256 * 2**20
"""What changed images and their maps may take at once."""


class NoiseStability(Metric):
    """Reads the maps of the image under noise that is too weak to be seen."""

    family: ClassVar[str] = "robustness"
    direction: ClassVar[Direction] = "down"
    range: ClassVar[tuple[float | None, float | None]] = (0.0, None)

    radius: float = Field(default=0.02, gt=0, description="of the noise, of the intensity range")
    draws: int = Field(default=8, ge=1)

    def queries(self, context: Context) -> tuple[Query, ...]:
        """Neighbors under uniform noise, one set for all methods."""
        return (Neighbors(UniformNoise(self.radius), self.draws, ranked=False),)

    def steps(self, field: MapField, context: MetricContext) -> list[PerturbationStep]:
        """How far map, image and score are from the original, per neighbor.

        Raises:
            Undefined: If the map is not informative or was made by no known method, or the image
                is constant.
        """
        field.require_informative()
        steps = neighbor_steps(field, context, self.queries(context.engine)[0])
        if not all(step.image for step in steps):
            raise Undefined("the image is constant, so noise relative to its range is zero")
        return steps


def neighbor_steps(field: MapField, context: MetricContext, query: Query) -> list[PerturbationStep]:
    """How far a map is from the original, per neighbor of a query.

    Raises:
        Undefined: If the map was made by no known method.
    """
    steps: dict[str, list[PerturbationStep]] = context.run_query(query)
    if field.name not in steps:
        raise Undefined("this map has no method that could explain a perturbed image")
    return steps[field.name]


@register
class MaxSensitivity(NoiseStability):
    """The largest relative change of the map under noise that is too weak to be seen.

    max ||a(x') - a(x)|| / ||a(x)|| (Yeh et al., 2019).
    """

    reference: ClassVar[str] = "Yeh et al., 2019"
    name: Literal["max_sensitivity"] = "max_sensitivity"

    def score(self, field: MapField, context: MetricContext) -> Value:
        return Value(max(step.map for step in self.steps(field, context)))


@register
class AverageSensitivity(NoiseStability):
    """The mean relative change of the map under noise that is too weak to be seen.

    The mean of ||a(x') - a(x)|| / ||a(x)|| (Yeh et al., 2019).
    """

    reference: ClassVar[str] = "Yeh et al., 2019"
    name: Literal["average_sensitivity"] = "average_sensitivity"

    def score(self, field: MapField, context: MetricContext) -> Value:
        steps = self.steps(field, context)
        return Value(sum(step.map for step in steps) / len(steps))


@register
class LocalLipschitz(NoiseStability):
    """The largest change of the map per change of the image.

    max ||a(x') - a(x)|| / ||x' - x|| (Alvarez-Melis and Jaakkola, 2018).
    """

    unit: ClassVar[str] = "map per intensity"
    reference: ClassVar[str] = "Alvarez-Melis and Jaakkola, 2018"
    name: Literal["local_lipschitz"] = "local_lipschitz"

    def score(self, field: MapField, context: MetricContext) -> Value:
        return Value(max(step.absolute / step.image for step in self.steps(field, context)))


@register
class RelativeInputStability(NoiseStability):
    """The largest relative change of the map per relative change of the image.

    Agarwal et al., 2022.
    """

    reference: ClassVar[str] = "Agarwal et al., 2022"
    name: Literal["relative_input_stability"] = "relative_input_stability"

    def score(self, field: MapField, context: MetricContext) -> Value:
        steps = self.steps(field, context)
        return Value(max(step.map / max(step.relative_image, 1e-6) for step in steps))


@register
class RelativeOutputStability(NoiseStability):
    """The largest relative change of the map per relative change of the score.

    Agarwal et al., 2022.
    """

    reference: ClassVar[str] = "Agarwal et al., 2022"
    name: Literal["relative_output_stability"] = "relative_output_stability"

    def score(self, field: MapField, context: MetricContext) -> Value:
        steps = self.steps(field, context)
        return Value(max(step.map / max(step.score, 1e-6) for step in steps))


@register
class MedicalStability(Metric):
    """Whether the map keeps the order of its voxels under changes that are common in imaging.

    Mean Spearman correlation with the maps of a shifted, rotated, noisier, differently windowed
    and differently shaded image, moved back where the image was moved. The mean of each change is
    in the facts.
    """

    family: ClassVar[str] = "robustness"
    direction: ClassVar[Direction] = "up"
    range: ClassVar[tuple[float | None, float | None]] = (-1.0, 1.0)
    name: Literal["medical_stability"] = "medical_stability"
    changes: tuple[Change, ...] = Field(default=get_args(Change), min_length=1)
    draws: int = Field(default=2, ge=1)

    def queries(self, context: Context) -> tuple[Query, ...]:
        """One set of neighbors per change, for all methods."""
        return tuple(Neighbors(MEDICAL[change], self.draws) for change in self.changes)

    def score(self, field: MapField, context: MetricContext) -> Value:
        field.require_informative()
        means: dict[str, float] = {}
        for change, query in zip(self.changes, self.queries(context.engine), strict=True):
            steps = neighbor_steps(field, context, query)
            means[change] = sum(step.rank for step in steps) / len(steps)
            if math.isnan(means[change]):
                raise Undefined(f"the map of a perturbed image ({change}) is constant")
        return Value(sum(means.values()) / len(means), facts=means)


@dataclass(frozen=True)
class PerturbationStep:
    """How far image x', map a and score S are from the original in one neighbor.

    Attributes:
        map: ||a(x') - a(x)|| / ||a(x)||.
        absolute: ||a(x') - a(x)||.
        image: ||x' - x||.
        relative_image: ||x' - x|| / ||x||.
        score: |S(x') - S(x)| / |S(x)|.
        rank: Spearman correlation of the two maps; NaN where one is constant, or where the query
            does not compute it.
    """

    map: float
    absolute: float
    image: float
    relative_image: float
    score: float
    rank: float = math.nan


@dataclass(frozen=True)
class Neighbors(Query):
    """Maps of neighbors, which are slightly changed images, by all methods together.

    Attributes:
        around: How neighbors are made.
        draws: How many.
        ranked: Whether rank correlations are computed too, for which all voxels are sorted.
    """

    explains: ClassVar[bool] = True

    around: Perturbation
    draws: int
    ranked: bool = True

    def cost(self, context: Context) -> int:
        return self.draws

    def run(self, context: MetricContext) -> dict[str, list[PerturbationStep]]:
        """By the key of the method, a step per neighbor; as many neighbors at once as fit."""
        steps: dict[str, list[PerturbationStep]] = {}
        at_once = self._at_once(context)
        for first in range(0, self.draws, at_once):
            draws = range(first, min(self.draws, first + at_once))
            for name, own in self._steps(context, draws).items():
                steps.setdefault(name, []).extend(own)
        return steps

    def _at_once(self, context: MetricContext) -> int:
        """One where the target moves, in another way per draw; else as many as fit in memory."""
        if self.around.moved(0) is not None:
            return 1
        image = context.input.image
        bytes_each = image.numel() * image.element_size() * (2 * len(context.methods) + 2)
        return max(1, min(self.draws, _NEIGHBORS_BYTES // bytes_each))

    def _steps(self, context: MetricContext, draws: range) -> dict[str, list[PerturbationStep]]:
        """By the key of the method, a step for each of some neighbors."""
        image, key = context.input.image, context.input.key
        around = self.around.on(context.spacing)
        neighbors = torch.stack([around.changed(image, key, draw) for draw in draws])
        moved = around.moved(draws[0], context.bound.unperturbed)
        scores = context.predict_many(
            len(neighbors), lambda numbers: neighbors[numbers.start : numbers.stop]
        ).scores
        maps = explain_again(context, neighbors, moved=moved, scores=scores)
        steps: dict[str, list[PerturbationStep]] = {}
        for name in context.fields.keys() & maps.keys():
            original = context.fields[name].map
            for row, draw in enumerate(draws):
                returned = around.returned(maps[name][row], draw)
                score = float(scores[row])
                step = _step(original, returned, image, neighbors[row], context.score, score)
                if self.ranked:
                    step = replace(step, rank=_rank_correlation(original, returned))
                steps.setdefault(name, []).append(step)
        return steps


def _step(
    original: Tensor,
    returned: Tensor,
    image: Tensor,
    neighbor: Tensor,
    image_score: float,
    neighbor_score: float,
) -> PerturbationStep:
    size = float(original.double().norm())
    map_change = float((returned.double() - original.double()).norm())
    image_change = float((neighbor - image).double().norm())
    return PerturbationStep(
        map=map_change / size if size else float("nan"),
        absolute=map_change,
        image=image_change,
        relative_image=image_change / max(float(image.double().norm()), 1e-300),
        score=abs(neighbor_score - image_score) / max(abs(image_score), 1e-300),
    )


def _rank_correlation(original: Tensor, returned: Tensor) -> float:
    """NaN where a map is constant."""
    try:
        return rank_correlation(original.double().sum(dim=0), returned.double().sum(dim=0))
    except Undefined:
        return math.nan
