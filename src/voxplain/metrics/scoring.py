"""The maps of one image beside their controls, scored one metric and one map at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from voxplain.engine.baselines import baseline_image
from voxplain.engine.method import Method
from voxplain.errors import ConfigError, VoxplainError
from voxplain.metrics.context import MetricContext
from voxplain.metrics.controls import control_maps
from voxplain.metrics.map_field import MapField
from voxplain.metrics.maps import AnyMap, Maps, to_network_grid
from voxplain.metrics.metric import Metric, Value
from voxplain.records.scores import Score

NETWORK = MapField("", torch.zeros(1))
"""Stands where a map would, in rows about the network itself; their method is empty."""


@dataclass(frozen=True, eq=False)
class MapScorer:
    """What is judged together.

    Attributes:
        context: The image, its network and its target.
        fields: The maps.
        controls: Maps that explain nothing.
        case: Id of the image.
        seed: Of every random draw.
        patient: Whose image it is; empty where the case stands for itself.
    """

    context: MetricContext
    fields: tuple[MapField, ...]
    controls: tuple[MapField, ...] = ()
    case: str = ""
    seed: int = 0
    patient: str = ""

    @classmethod
    def of(
        cls,
        context: MetricContext,
        maps: Maps,
        controls: bool = True,
        case: str = "",
        seed: int = 0,
        patient: str = "",
    ) -> MapScorer:
        """The panel of some maps; from then on the question knows them.

        Raises:
            ConfigError: If a map has the name of a control.
            InputError: If a map lies on another grid.
        """
        fields = [map_field(name, found, context) for name, found in maps.items()]
        context.fields = {field.name: field for field in fields}
        others = control_maps(context) if controls else []
        if taken := {field.name for field in others} & set(context.fields):
            raise ConfigError(
                f"a map is called {min(taken)!r}, which is the name of a control; call it "
                "something else, or leave the controls out"
            )
        context.judged = (*fields, *others)
        return cls(context, tuple(fields), tuple(others), case, seed, patient)

    def __iter__(self) -> Iterator[MapField]:
        return iter((*self.fields, *self.controls))

    def judged_by(self, metric: Metric) -> tuple[MapField, ...]:
        """The maps and controls; the place of a map that is none, for metrics of the network."""
        return (NETWORK,) if metric.of_network else (*self.fields, *self.controls)

    def score(self, metric: Metric, field: MapField) -> Score:
        """What a metric says of one of the maps."""
        before = self.context.forwards
        value, reason = score_maps(metric, field, self.context)
        return self._row(metric, field, value, reason, self.context.forwards - before)

    def undefined(self, metric: Metric, field: MapField, reason: str) -> Score:
        """The row of a score that there is none of."""
        return self._row(metric, field, Value(math.nan), reason)

    def _row(
        self, metric: Metric, field: MapField, value: Value, reason: str, passes: int = 0
    ) -> Score:
        return Score(
            metric=metric.name,
            method=field.name,
            value=value.value,
            direction=metric.direction,
            minimum=metric.range[0],
            maximum=metric.range[1],
            unit=str(value.facts.get("unit", metric.unit)),
            control=field in self.controls,
            reason=reason,
            passes=passes,
            case=self.case,
            model=self.context.base.model.name,
            target=self.context.bound.target.slug,
            seed=self.seed,
            parameters=metric.model_dump(mode="json", exclude={"name"}),
            facts=dict(value.facts),
            curve=value.curve,
            family=metric.family,
            meaning=metric.meaning(),
            patient=self.patient,
            correct=self.context.correct,
        )


def score_maps(metric: Metric, field: MapField, context: MetricContext) -> tuple[Value, str]:
    """A value, and why it is NaN if it is."""
    try:
        value = metric.score(field, context)
    except VoxplainError as error:
        return Value(math.nan), str(error)
    if math.isfinite(value.value):
        return value, ""
    return replace(value, value=math.nan), value.reason or "the score is not a finite number"


def map_field(name: str, found: AnyMap, context: MetricContext) -> MapField:
    """A map on the grid of the network.

    Raises:
        InputError: If it lies elsewhere.
    """
    given = to_network_grid(name, found, context.base)
    return MapField(
        name=name,
        map=given.map.to(context.item.image.device),
        sign=given.sign,
        share=given.share,
        key=context.item.key,
        completeness=given.completeness,
        start=_start(given.method, context.item.image),
    )


def _start(method: Method | None, image: Tensor) -> Tensor | None:
    """The baseline of a method that has one."""
    baseline = method.properties().baseline if method else None
    if baseline is None or (isinstance(baseline, Tensor) and baseline.shape != image.shape):
        return None
    return baseline_image(baseline, image)
