"""Layer-wise relevance propagation: to the image, to layers, and through channels of a layer."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError, model_validator

from voxplain.attribution.methods.base import AtLayers, FromLayer
from voxplain.engine.context import Context
from voxplain.engine.gradients.reducers import MeanGradient
from voxplain.engine.gradients.samplers import Original
from voxplain.engine.method import Method, register
from voxplain.engine.requests import GradientRequest, Request
from voxplain.engine.rules import Lrp, ThroughLayer
from voxplain.engine.rules.lrp.composites import Choice, CompositeName, composite_of
from voxplain.engine.rules.lrp.intensity_range import IntensityRange
from voxplain.engine.rules.lrp.layer_rules import EPSILON
from voxplain.errors import ConfigError


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, (int, float)) else value


def _named_or_listed(value: Any) -> Any:
    """A composite, checked here so that an error names the wrong choice alone."""
    try:
        if isinstance(value, (list, tuple)):
            return tuple(_CHOICE.validate_python(choice) for choice in value)
        composite_of(value, EPSILON, 0.0)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(map(str, first["loc"]))
        raise ValueError(f"choice {path}: {first['msg']}") from None
    return value


_CHOICE = TypeAdapter(Choice)
AnyComposite = Annotated[CompositeName | tuple[Choice, ...], BeforeValidator(_named_or_listed)]
Levels = Annotated[tuple[float, ...] | None, BeforeValidator(_several)]
LayerChannels = Annotated[tuple[int, ...], BeforeValidator(_several), Field(min_length=1)]


class _RelevanceMethod(Method):
    """A map of relevance at the image or at layers.

    Attributes:
        composite: The layer rule of each layer: ``epsilon_gamma_box`` (box where the image is
            read, gamma in the lower half, epsilon above), ``epsilon``, ``epsilon_plus`` (z-plus
            in convolutions), ``alpha2_beta1``, or a list of choices.
        epsilon: Stabilizer, relative to the root mean square of the denominators.
        gamma: How much contributions of the sign of their sum are favored.
        low: Smallest intensity, one or one per channel, for the box rule; that of the image.
        high: Largest one.
        gate: What the signal of a gated product (signal times sigmoid) gets: all, or half.
    """

    family = "rule"
    units = "score"
    revision = 2

    composite: AnyComposite = "epsilon_gamma_box"
    epsilon: float = Field(default=EPSILON, ge=0)
    gamma: float = Field(default=0.25, ge=0)
    low: Levels = Field(default=None, description="absent: that of the image")
    high: Levels = Field(default=None, description="absent: that of the image")
    gate: Literal["signal", "half"] = "signal"

    @model_validator(mode="after")
    def _low_below_high(self) -> _RelevanceMethod:
        try:
            IntensityRange(self.low, self.high)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self

    def requests(self, context: Context) -> tuple[Request, ...]:
        """One pass, whose gradient under the rule is the relevance."""
        return (GradientRequest(Original(), MeanGradient, self._rule(context)),)

    def _rule(self, context: Context) -> Lrp:
        return Lrp(
            composite=self.composite,
            epsilon=self.epsilon,
            gamma=self.gamma,
            low=self.low,
            high=self.high,
            gate=self.gate,
            through=self._through(context),
        )

    def _through(self, context: Context) -> ThroughLayer | None:
        return None


@register
class LayerwiseRelevance(_RelevanceMethod):
    """The relevance of each voxel for the score, propagated back layer by layer.

    Every layer distributes the relevance of its output over its inputs by their contributions, so
    that the map and the relevance of biases add up to the score; the sidecar states both. Written
    from the papers. The documentation of another implementation states that LRP is patented and
    free for personal and scientific use only; check this before commercial use.
    """

    formula = "R_i = sum_j c_ij / sum_i c_ij R_j, layer by layer, from R = dS/dF F"
    reference = "Bach et al., 2015; Montavon et al., 2019"
    name: Literal["lrp"] = "lrp"


@register
class LayerLrp(AtLayers, _RelevanceMethod):
    """The relevance of each unit of a layer for the score, by layer-wise relevance propagation."""

    formula = "R at the layer, by layer-wise relevance propagation"
    reference = "Bach et al., 2015; Montavon et al., 2019"
    name: Literal["layer_lrp"] = "layer_lrp"


@register
class ConditionalRelevance(FromLayer, _RelevanceMethod):
    """The relevance of each voxel for the score through the chosen channels of a layer alone.

    Relevance that bypasses the layer, or passes its other channels, is left out. The map and the
    relevance of biases below the layer add up to the relevance of the channels.
    """

    formula = "R at the image of R_k at the layer for the chosen channels k, 0 elsewhere"
    reference = "Achtibat et al., 2023"
    name: Literal["conditional_relevance"] = "conditional_relevance"
    layer_channels: LayerChannels = Field(description="channels of the layer that relevance passes")

    def _through(self, context: Context) -> ThroughLayer:
        return ThroughLayer(self.tap(context).path, self.layer_channels)
