"""Rows of the table of scores: maps of one image and controls beside them, a metric at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from voxplain.errors import ConfigError, VoxplainError
from voxplain.metrics.context import MetricContext
from voxplain.metrics.controls import control_maps
from voxplain.metrics.metric import BaseMetric, PendingScore, Value
from voxplain.records.scores import Score


@dataclass(frozen=True, eq=False)
class MapScorer:
    """Scores the maps of one image, and the controls beside them.

    Attributes:
        context: The image, its network and target, maps and controls.
        seed: Of every random draw, as the rows state it.
    """

    context: MetricContext
    seed: int = 0

    @classmethod
    def of(cls, context: MetricContext, controls: bool = True, seed: int = 0) -> MapScorer:
        """The scorer of the maps of a context; controls are added to the context.

        Args:
            context: With its maps.
            controls: Whether random, edge, intensity and center maps are scored too.
            seed: Of every random draw.

        Raises:
            ConfigError: If a map has the name of a control.
        """
        made = control_maps(context) if controls else []
        if taken := {field.name for field in made} & set(context.fields):
            raise ConfigError(
                f"a map is called {min(taken)!r}, which is the name of a control; call it "
                "something else, or leave the controls out"
            )
        context.controls = tuple(made)
        return cls(context, seed)

    def pending(self, metric: BaseMetric) -> list[PendingScore]:
        """The scores that a metric gives: one per map and control, or one of the network."""
        return metric.pending(self.context.all_fields)

    def score(self, pending: PendingScore) -> Score:
        """Computes a score; NaN with a reason where it does not exist."""
        before = self.context.forwards
        value, reason = value_or_reason(pending, self.context)
        return self._row(pending, value, reason, self.context.forwards - before)

    def undefined(self, pending: PendingScore, reason: str) -> Score:
        """The row of a score that could not be computed."""
        return self._row(pending, Value(math.nan), reason)

    def _row(self, pending: PendingScore, value: Value, reason: str, forwards: int = 0) -> Score:
        metric, context = pending.metric, self.context
        return Score(
            metric=metric.name,
            method=pending.method,
            value=value.value,
            direction=metric.direction,
            minimum=metric.range[0],
            maximum=metric.range[1],
            unit=str(value.facts.get("unit", metric.unit)),
            control=pending.method in {field.name for field in context.controls},
            reason=reason,
            passes=forwards,
            case=context.case.id,
            model=context.engine.model.name,
            target=context.bound.target.slug,
            seed=self.seed,
            parameters=metric.model_dump(mode="json", exclude={"name"}),
            facts=dict(value.facts),
            curve=value.curve,
            family=metric.family,
            meaning=metric.meaning(),
            patient=context.case.patient,
            correct=context.correct,
        )


def value_or_reason(pending: PendingScore, context: MetricContext) -> tuple[Value, str]:
    """A value, and why it is NaN if it is."""
    try:
        value = pending.compute(context)
    except VoxplainError as error:
        return Value(math.nan), str(error)
    if math.isfinite(value.value):
        return value, ""
    return replace(value, value=math.nan), value.reason or "the score is not a finite number"
