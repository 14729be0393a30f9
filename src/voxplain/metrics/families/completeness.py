"""Completeness: whether a map adds up to the difference of scores that it divides up."""

from __future__ import annotations

from typing import ClassVar, Literal

from voxplain.metrics.context import MetricContext
from voxplain.metrics.maps import MapField, Undefined
from voxplain.metrics.metric import Direction, Metric, Value, register


@register
class CompletenessResidual(Metric):
    """How far the sum of the map is from the change of the score that it should equal.

    |sum - (S(x) - S(b))| / |S(x) - S(b)| with the baseline b, for methods that promise
    completeness; measured when the map is made.
    """

    family: ClassVar[str] = "faithfulness"
    direction: ClassVar[Direction] = "down"
    range: ClassVar[tuple[float | None, float | None]] = (0.0, None)
    reference: ClassVar[str] = "Sundararajan et al., 2017"
    name: Literal["completeness_residual"] = "completeness_residual"

    def score(self, field: MapField, context: MetricContext) -> Value:
        if field.completeness is None:
            raise Undefined("the method does not promise completeness")
        return Value(field.completeness)
