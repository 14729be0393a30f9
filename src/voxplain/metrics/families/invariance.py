"""Input invariance: a constant that the network subtracts again should not change the map."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from voxplain.engine.baselines import intensity_range
from voxplain.engine.context import Context
from voxplain.metrics.context import MetricContext, Query
from voxplain.metrics.curves import correlation
from voxplain.metrics.maps import MapField, Undefined
from voxplain.metrics.metric import Direction, Metric, Value, register
from voxplain.metrics.queries.input_shift import shifted_input_network
from voxplain.metrics.re_explain import explain_again


@register
class InputInvariance(Metric):
    """How much the map changes when image and network are shifted by the same constant.

    1 - Pearson correlation with the map of x + c by the network f(x - c), whose scores are those
    of f on x (Kindermans et al., 2019). Gradients do not change; maps that are multiplied with the
    intensity, or counted from a baseline of fixed intensity, do.
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
        before = field.require_informative()
        maps: dict[str, Tensor] = context.run_query(self.queries(context.engine)[0])
        if field.name not in maps:
            raise Undefined("this map has no method that could explain again")
        after = replace(field, map=maps[field.name].to(before.device))
        return Value(1 - correlation(before, after.require_informative()))


@dataclass(frozen=True)
class ShiftedIntensity(Query):
    """Maps of the image plus a constant, by a network that subtracts the constant.

    Attributes:
        shift: The constant, as a fraction of the intensity range of each channel.
    """

    explains: ClassVar[bool] = True

    shift: float

    def cost(self, context: Context) -> int:
        return 1

    def run(self, context: MetricContext) -> dict[str, Tensor]:
        """By the key of the method, ``(C, *spatial)``."""
        original, engine = context.input, context.engine
        constant = self.shift * intensity_range(original.image)
        if not bool(constant.any()):
            raise Undefined("the image is constant, so a shift by a share of its range is zero")
        if engine.layout is not None and engine.layout.is_padded:
            raise Undefined(
                "the image is smaller than a window of the network, whose padding would not be "
                "shifted with it"
            )
        network = shifted_input_network(engine.model, engine.example, constant)
        references = None if original.references is None else original.references + constant
        shifted = context.with_model(network)
        shifted.input = replace(original, image=original.image + constant, references=references)
        maps = explain_again(shifted, shifted.input.image[None])
        return {name: values[0] for name, values in maps.items()}
