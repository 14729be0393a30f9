"""Completeness: whether a map adds up to the difference of scores it shares out."""

from __future__ import annotations

from typing import ClassVar, Literal

from voxplain.metrics.context import MetricContext
from voxplain.metrics.map_field import MapField, Undefined
from voxplain.metrics.metric import Direction, Metric, Value, register


@register
class CompletenessResidual(Metric):
    """How far a map is from sharing out the whole change of the score.

    |sum - (S(x) - S(b))| / |S(x) - S(b)|, for methods that promise it.
    """

    family: ClassVar[str] = "faithfulness"
    direction: ClassVar[Direction] = "down"
    range: ClassVar[tuple[float | None, float | None]] = (0.0, None)
    reference: ClassVar[str] = "Sundararajan et al., 2017"
    name: Literal["completeness_residual"] = "completeness_residual"

    def score(self, field: MapField, context: MetricContext) -> Value:
        """As it was measured when the map was made."""
        if field.completeness is None:
            raise Undefined("the method does not promise completeness")
        return Value(field.completeness)
