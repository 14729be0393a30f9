"""Robustness: does the map stay what it is when the image changes a little?"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, get_args

import torch
from pydantic import Field
from torch import Tensor

from voxplain.engine.context import Context
from voxplain.metrics.context import MetricContext, Query
from voxplain.metrics.curves import rank_correlation
from voxplain.metrics.map_field import MapField, Undefined
from voxplain.metrics.metric import Direction, Metric, Value, register
from voxplain.metrics.queries.perturbations import MEDICAL, Change, Perturbation, UniformNoise
from voxplain.metrics.re_explain import explain_again

_NEIGHBORS_BYTES = 256 * 2**20


@dataclass(frozen=True)
class PerturbationStep:
    """How far image, map and score went from the original to one neighbor.

    Attributes:
        map: ||a(x') - a(x)|| / ||a(x)||.
        absolute: ||a(x') - a(x)||.
        image: ||x' - x||.
        relative_image: ||x' - x|| / ||x||.
        score: |S(x') - S(x)| / |S(x)|.
        rank: Spearman correlation of the two maps; NaN where one is constant, or nobody asked.
    """

    map: float
    absolute: float
    image: float
    relative_image: float
    score: float
    rank: float = math.nan


@dataclass(frozen=True)
class Neighbors(Query):
    """Explanations of neighbors, by all methods together.

    Attributes:
        around: How neighbors are made.
        draws: How many.
        ranked: Whether the order of the voxels is compared too, which needs all of them sorted.
    """

    explains: ClassVar[bool] = True

    around: Perturbation
    draws: int
    ranked: bool = True

    def expected(self, context: Context) -> int:
        """Explanations are counted in passes of their streams, not as forwards."""
        return self.draws

    def run(self, context: MetricContext, field: MapField) -> dict[str, list[PerturbationStep]]:
        """By the key of the method, a step per neighbor; as many neighbors at once as fit."""
        found: dict[str, list[PerturbationStep]] = {}
        together = self._together(context)
        for first in range(0, self.draws, together):
            self._add(context, range(first, min(self.draws, first + together)), found)
        return found

    def _add(
        self, context: MetricContext, draws: range, found: dict[str, list[PerturbationStep]]
    ) -> None:
        image, key = context.item.image, context.item.key
        around = self.around.on(context.spacing)
        changed = torch.stack([around.changed(image, key, draw) for draw in draws])
        moved = around.moved(draws[0], context.base.shape)
        observed = context.of_all(len(changed), lambda part: changed[part.start : part.stop])
        maps = explain_again(context, changed, moved=moved, scores=observed.scores)
        for name in context.fields.keys() & maps.keys():
            original = context.fields[name].map
            for row, draw in enumerate(draws):
                back = around.returned(maps[name][row], draw)
                score = float(observed.scores[row])
                step = _step(original, back, image, changed[row], context.whole, score)
                if self.ranked:
                    step = replace(step, rank=_rank(original, back))
                found.setdefault(name, []).append(step)

    def _together(self, context: MetricContext) -> int:
        """Alone where the target moves, in its own way per draw; else by what their maps take."""
        if self.around.moved(0) is not None:
            return 1
        image = context.item.image
        each = image.numel() * image.element_size() * (2 * len(context.methods) + 2)
        return max(1, min(self.draws, _NEIGHBORS_BYTES // each))


def _step(
    original: Tensor, back: Tensor, image: Tensor, changed: Tensor, whole: float, score: float
) -> PerturbationStep:
    size = float(original.double().norm())
    apart = float((back.double() - original.double()).norm())
    moved = float((changed - image).double().norm())
    return PerturbationStep(
        map=apart / size if size else float("nan"),
        absolute=apart,
        image=moved,
        relative_image=moved / max(float(image.double().norm()), 1e-300),
        score=abs(score - whole) / max(abs(whole), 1e-300),
    )


def _rank(original: Tensor, back: Tensor) -> float:
    try:
        return rank_correlation(original.double().sum(dim=0), back.double().sum(dim=0))
    except Undefined:
        return math.nan


class UnderNoise(Metric):
    """What is read from maps of the image under noise that nobody sees."""

    family: ClassVar[str] = "robustness"
    direction: ClassVar[Direction] = "down"
    range: ClassVar[tuple[float | None, float | None]] = (0.0, None)

    radius: float = Field(default=0.02, gt=0, description="of the noise, of the intensity range")
    draws: int = Field(default=8, ge=1)

    def queries(self, context: Context) -> tuple[Query, ...]:
        """Neighbors under uniform noise, one set for all methods."""
        return (Neighbors(UniformNoise(self.radius), self.draws, ranked=False),)

    def steps(self, field: MapField, context: MetricContext) -> list[PerturbationStep]:
        """A step per neighbor.

        Raises:
            Undefined: If the map says nothing, has no method, or the image is constant.
        """
        field.checked  # noqa: B018 - raises for maps that say nothing
        steps = steps_of(field, context, self.queries(context.base)[0])
        if not all(step.image for step in steps):
            raise Undefined("the image is constant, so that noise relative to its range is none")
        return steps


def steps_of(field: MapField, context: MetricContext, query: Query) -> list[PerturbationStep]:
    """What became of a map under the neighbors of a probe.

    Raises:
        Undefined: If there is no method behind it.
    """
    found: dict[str, list[PerturbationStep]] = context.run_query(query, field)
    if field.name not in found:
        raise Undefined("there is no method behind this map that could explain a neighbor")
    return found[field.name]


@register
class MaxSensitivity(UnderNoise):
    """The largest relative change of the map under noise that nobody sees.

    max ||a(x') - a(x)|| / ||a(x)|| (Yeh et al., 2019).
    """

    reference: ClassVar[str] = "Yeh et al., 2019"
    name: Literal["max_sensitivity"] = "max_sensitivity"

    def score(self, field: MapField, context: MetricContext) -> Value:
        """The maximum."""
        return Value(max(step.map for step in self.steps(field, context)))


@register
class AverageSensitivity(UnderNoise):
    """The mean relative change of the map under noise that nobody sees."""

    reference: ClassVar[str] = "Yeh et al., 2019"
    name: Literal["average_sensitivity"] = "average_sensitivity"

    def score(self, field: MapField, context: MetricContext) -> Value:
        """The mean."""
        steps = self.steps(field, context)
        return Value(sum(step.map for step in steps) / len(steps))


@register
class LocalLipschitz(UnderNoise):
    """The largest change of the map per change of the image.

    max ||a(x') - a(x)|| / ||x' - x|| (Alvarez-Melis and Jaakkola, 2018).
    """

    unit: ClassVar[str] = "map per intensity"
    reference: ClassVar[str] = "Alvarez-Melis and Jaakkola, 2018"
    name: Literal["local_lipschitz"] = "local_lipschitz"

    def score(self, field: MapField, context: MetricContext) -> Value:
        """The maximum."""
        return Value(max(step.absolute / step.image for step in self.steps(field, context)))


@register
class RelativeInputStability(UnderNoise):
    """The largest relative change of the map per relative change of the image.

    Agarwal et al., 2022.
    """

    reference: ClassVar[str] = "Agarwal et al., 2022"
    name: Literal["relative_input_stability"] = "relative_input_stability"

    def score(self, field: MapField, context: MetricContext) -> Value:
        """The maximum."""
        steps = self.steps(field, context)
        return Value(max(step.map / max(step.relative_image, 1e-6) for step in steps))


@register
class RelativeOutputStability(UnderNoise):
    """The largest relative change of the map per relative change of the score.

    Agarwal et al., 2022.
    """

    reference: ClassVar[str] = "Agarwal et al., 2022"
    name: Literal["relative_output_stability"] = "relative_output_stability"

    def score(self, field: MapField, context: MetricContext) -> Value:
        """The maximum."""
        steps = self.steps(field, context)
        return Value(max(step.map / max(step.score, 1e-6) for step in steps))


@register
class MedicalStability(Metric):
    """Whether the map keeps its order under changes that a clinic makes every day.

    Mean Spearman correlation with the maps of a shifted, rotated, noisier, differently windowed
    and differently shaded image, brought back where it moved.
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
        """The mean over the changes; each of them in the facts."""
        field.checked  # noqa: B018 - raises for maps that say nothing
        means: dict[str, float] = {}
        for change, query in zip(self.changes, self.queries(context.base), strict=True):
            steps = steps_of(field, context, query)
            means[change] = sum(step.rank for step in steps) / len(steps)
            if math.isnan(means[change]):
                raise Undefined(f"the map of a neighbor ({change}) is constant")
        return Value(sum(means.values()) / len(means), facts=means)


__all__ = ["Neighbors", "PerturbationStep", "UnderNoise", "steps_of"]
