"""Relevance methods: layer-wise relevance propagation to the image, to layers, through channels."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError, model_validator
from torch import Tensor

from voxplain.attribution.methods.layer_method import LayerMethod
from voxplain.engine.context import Context
from voxplain.engine.gradients.reducers import MeanGradient
from voxplain.engine.gradients.samplers import Original
from voxplain.engine.method import Method, register
from voxplain.engine.requests import GradientRequest
from voxplain.engine.rules import Lrp, ThroughLayer
from voxplain.engine.rules.lrp.composites import Choice, CompositeName, composite_of
from voxplain.engine.rules.lrp.intensity_range import IntensityRange
from voxplain.engine.rules.lrp.layer_rules import EPSILON
from voxplain.engine.stream_io import StreamResults
from voxplain.engine.taps import INPUT
from voxplain.errors import ConfigError


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, (int, float)) else value


def _named_or_listed(value: Any) -> Any:
    """Errors name the choice that is wrong, and not every way in which a composite is written."""
    try:
        if isinstance(value, (list, tuple)):
            return tuple(_CHOICE.validate_python(choice) for choice in value)
        composite_of(value, EPSILON, 0.0)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"choice {path}: {first['msg']}") from None
    return value


_CHOICE = TypeAdapter(Choice)
AnyComposite = Annotated[CompositeName | tuple[Choice, ...], BeforeValidator(_named_or_listed)]
Levels = Annotated[tuple[float, ...] | None, BeforeValidator(_several)]
Channels = Annotated[tuple[int, ...], BeforeValidator(_several), Field(min_length=1)]


class _Relevance(Method):
    """What the relevance methods share.

    Attributes:
        composite: Which layer rule a layer gets: ``epsilon_gamma_box`` (box where the image is
            read, gamma in the lower half, epsilon above), ``epsilon``, ``epsilon_plus`` (z-plus
            in convolutions), ``alpha2_beta1``, or a list of choices.
        epsilon: Stabilizer, relative to the root mean square of the denominators.
        gamma: How much contributions of the sign of their sum are favored.
        low: Smallest intensity, one or one per channel, for the box rule; that of the image.
        high: Largest one.
        gate: What the signal of a gate (signal times sigmoid) gets: all, or half.
    """

    family: ClassVar[str] = "rule"
    units: ClassVar[str] = "score"

    composite: AnyComposite = "epsilon_gamma_box"
    epsilon: float = Field(default=EPSILON, ge=0)
    gamma: float = Field(default=0.25, ge=0)
    low: Levels = Field(default=None, description="absent: that of the image")
    high: Levels = Field(default=None, description="absent: that of the image")
    gate: Literal["signal", "half"] = "signal"

    @model_validator(mode="after")
    def _both_ends(self) -> _Relevance:
        try:
            IntensityRange(self.low, self.high)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self

    def _rule(self, through: ThroughLayer | None = None) -> Lrp:
        return Lrp(
            composite=self.composite,
            epsilon=self.epsilon,
            gamma=self.gamma,
            low=self.low,
            high=self.high,
            gate=self.gate,
            through=through,
        )


@register
class LayerwiseRelevance(_Relevance):
    """The score handed back through the network layer by layer, to the voxels it came from.

    Every layer shares the relevance of its output among its inputs by what they contributed, so
    that the map and what biases took add up to the score; the sidecar holds the balance. Written
    from the papers. The documentation of another implementation states that LRP is patented and
    free for personal and scientific use only; who uses it commercially should look into that.
    """

    formula = "R_i = sum_j c_ij / sum_i c_ij R_j, layer by layer, from R = dS/dF F"
    reference = "Bach et al., 2015; Montavon et al., 2019"
    name: Literal["lrp"] = "lrp"

    def requests(self, context: Context) -> tuple[GradientRequest, ...]:
        """One pass; what arrives at the image is the map."""
        return (GradientRequest(Original(), MeanGradient, self._rule()),)


@register
class LayerLrp(_Relevance, LayerMethod):
    """The relevance that arrives at the units of a layer on its way back to the image."""

    formula = "R at the layer, by layer-wise relevance propagation"
    reference = "Bach et al., 2015; Montavon et al., 2019"
    family = "layer"
    units: ClassVar[str] = "score"
    name: Literal["layer_lrp"] = "layer_lrp"

    def requests(self, context: Context) -> tuple[GradientRequest, ...]:
        """One pass."""
        return (GradientRequest(Original(), MeanGradient, self._rule(), self._taps(context)),)


@register
class ConditionalRelevance(_Relevance):
    """Where in the image the chosen channels of a layer drew the evidence that they handed on.

    Relevance that goes round the layer, or through its other channels, is left out; the map and
    what biases below the layer took add up to the relevance of the channels.
    """

    formula = "R at the image of R_k at the layer for the chosen channels k, 0 elsewhere"
    reference = "Achtibat et al., 2023"
    name: Literal["conditional_relevance"] = "conditional_relevance"
    layer: str | None = Field(default=None, description="path; absent: the last feature layer")
    layer_channels: Channels = Field(description="channels of the layer that relevance passes")

    def requests(self, context: Context) -> tuple[GradientRequest, ...]:
        """One pass, in two stretches."""
        (tap,) = context.taps((self.layer,) if self.layer else ())
        through = ThroughLayer(tap.path, self.layer_channels)
        return (GradientRequest(Original(), MeanGradient, self._rule(through)),)

    def maps(self, results: StreamResults, context: Context) -> dict[str | None, Tensor]:
        """The map at the image."""
        return {None: results[0][INPUT]}
