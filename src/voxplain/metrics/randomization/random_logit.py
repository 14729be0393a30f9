"""Random logit: the map of another class should differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from voxplain.engine.context import BoundTarget, Context
from voxplain.errors import TargetError
from voxplain.metrics.context import MetricContext, Query
from voxplain.metrics.maps import MapField, Undefined
from voxplain.metrics.metric import Direction, Metric, Value, register
from voxplain.metrics.randomization.similarity import Measure, similarity
from voxplain.metrics.re_explain import explain_again


@register
class RandomLogit(Metric):
    """How similar the map is to that of another class: a map for every class explains none.

    The other class is the one with the next higher score (Sixt et al., 2020).
    """

    family: ClassVar[str] = "randomization"
    direction: ClassVar[Direction] = "down"
    range: ClassVar[tuple[float | None, float | None]] = (-1.0, 1.0)
    reference: ClassVar[str] = "Sixt et al., 2020"
    name: Literal["random_logit"] = "random_logit"
    similarity: Measure = "spearman"

    def queries(self, context: Context) -> tuple[Query, ...]:
        """One explanation of another class by all methods."""
        return (RunnerUp(),)

    def score(self, field: MapField, context: MetricContext) -> Value:
        """Similarity with the map of the other class."""
        field.require_informative()
        maps: dict[str, Tensor] = context.run_query(RunnerUp())
        if field.name not in maps:
            raise Undefined("this map has no method that could explain again")
        other = maps[field.name]
        if not bool(other.isfinite().all()) or bool(other.amax() == other.amin()):
            raise Undefined("the map of the other class is constant or not finite")
        return Value(float(getattr(similarity(field.values, other), self.similarity)))


@dataclass(frozen=True)
class RunnerUp(Query):
    """Maps of the class with the next higher score for which there is something to explain."""

    explains: ClassVar[bool] = True

    def cost(self, context: Context) -> int:
        return 1

    def run(self, context: MetricContext) -> dict[str, Tensor]:
        """By the key of the method, ``(*spatial)`` float64.

        Raises:
            Undefined: If the target is not about one of several classes.
        """
        target, seen, row = context.bound.target, context.bound.unperturbed, context.input.row
        label = context.bound.field.label_of(row)
        if label is None or not hasattr(target, "label") or seen.output.shape[1] < 2:
            raise Undefined("the target is not about one of several classes")
        scores = seen.output[row].flatten(1).mean(dim=1) if seen.is_dense else seen.output[row]
        for other in scores.argsort(descending=True).tolist():
            if other == label:
                continue
            try:
                bound = BoundTarget.of(target.model_copy(update={"label": other}), seen)
            except TargetError:
                continue
            maps = explain_again(context.with_bound(bound), context.input.image[None])
            return {name: values[0].double().sum(dim=0) for name, values in maps.items()}
        raise Undefined("no other class can be explained on this image")
