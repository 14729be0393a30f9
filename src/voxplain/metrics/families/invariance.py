"""Invariance: a constant added to the image, and taken away by the network, explains nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from voxplain.engine.baselines import intensity_range
from voxplain.engine.context import Context
from voxplain.metrics.context import MetricContext, Query
from voxplain.metrics.curves import correlation
from voxplain.metrics.map_field import MapField, Undefined
from voxplain.metrics.metric import Direction, Metric, Value, register
from voxplain.metrics.queries.input_shift import shifted_input_network
from voxplain.metrics.re_explain import explain_again


@register
class InputInvariance(Metric):
    """How much the map changes when image and network are shifted by the same constant.

    1 - Pearson correlation with the map of x + c by the network f(x - c), whose scores are those
    of f on x (Kindermans et al., 2019). Gradients stay; what is multiplied with the intensity, or
    counted from a baseline of fixed intensity, does not.
    """

    family: ClassVar[str] = "faithfulness"
    direction: ClassVar[Direction] = "down"
    range: ClassVar[tuple[float | None, float | None]] = (0.0, 2.0)
    reference: ClassVar[str] = "Kindermans et al., 2019"
    name: Literal["input_invariance"] = "input_invariance"
    shift: float = Field(default=0.1, gt=0, description="of the intensity range of each channel")

    def queries(self, context: Context) -> tuple[Query, ...]:
        """One explanation of the shifted image, by all methods together."""
        return (ShiftedIntensity(self.shift),)

    def score(self, field: MapField, context: MetricContext) -> Value:
        """Of the channel sums."""
        before = field.checked
        found: dict[str, Tensor] = context.run_query(self.queries(context.base)[0], field)
        if field.name not in found:
            raise Undefined("there is no method behind this map that could explain again")
        after = replace(field, map=found[field.name].to(before.device))
        return Value(1 - correlation(before, after.checked))


@dataclass(frozen=True)
class ShiftedIntensity(Query):
    """Maps of the image plus a constant, by a network that takes it away again.

    Attributes:
        shift: Of the intensity range of each channel.
    """

    explains: ClassVar[bool] = True

    shift: float

    def expected(self, context: Context) -> int:
        """One explanation."""
        return 1

    def run(self, context: MetricContext, field: MapField) -> dict[str, Tensor]:
        """By the key of the method, ``(C, *spatial)``."""
        item, layout = context.item, context.base.layout
        constant = self.shift * intensity_range(item.image)
        if not bool(constant.any()):
            raise Undefined("the image is constant, so that a share of its range is no shift")
        if layout is not None and layout.is_padded:
            raise Undefined(
                "the image is smaller than a window of the network, whose padding would not be "
                "shifted with it"
            )
        base = context.base
        shifted = context.with_model(shifted_input_network(base.model, base.example, constant))
        references = None if item.references is None else item.references + constant
        shifted.item = replace(item, image=item.image + constant, references=references)
        maps = explain_again(shifted, shifted.item.image[None])
        return {name: map[0] for name, map in maps.items()}


__all__ = ["InputInvariance", "ShiftedIntensity"]
