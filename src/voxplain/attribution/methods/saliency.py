"""Gradients at the image or at a layer: saliency, input times gradient, activations."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from voxplain.attribution.methods.layer_method import LayerMethod
from voxplain.engine.context import Context
from voxplain.engine.gradients.reducers import MeanGradient, MeanValue, TimesValue
from voxplain.engine.gradients.samplers import Original
from voxplain.engine.method import Method, Resampling, register
from voxplain.engine.network_layers import Assembly
from voxplain.engine.requests import GradientRequest
from voxplain.engine.rules import Plain, Rule


class _OneGradient(Method):
    """A gradient at the image itself."""

    reducer: ClassVar[Any] = MeanGradient

    def requests(self, context: Context) -> tuple[GradientRequest, ...]:
        """One pass at the image."""
        return (GradientRequest(Original(), self.reducer, self._rule()),)

    def _rule(self) -> Rule:
        return Plain()


@register
class Saliency(_OneGradient):
    """How much the score changes when a voxel changes a little."""

    formula = "dS/dx"
    reference = "Simonyan et al., 2014"
    name: Literal["saliency"] = "saliency"


@register
class VanillaBackprop(_OneGradient):
    """How much the score changes when a voxel changes a little (saliency by another name)."""

    formula = "dS/dx"
    reference = "Simonyan et al., 2014"
    name: Literal["vanilla_backprop"] = "vanilla_backprop"


@register
class InputXGradient(_OneGradient):
    """The gradient times the intensity it acts on."""

    formula = "x dS/dx"
    reference = "Shrikumar et al., 2016"
    units = "score"
    reducer = TimesValue
    name: Literal["input_x_gradient"] = "input_x_gradient"


@register
class GradientTimesImage(_OneGradient):
    """The gradient times the intensity it acts on, summed over channels."""

    formula = "sum over channels of x dS/dx"
    reference = "Shrikumar et al., 2016"
    units = "score"
    reducer = TimesValue
    name: Literal["gradient_times_image"] = "gradient_times_image"
    channels: Literal["keep", "sum", "sum_abs", "max_abs"] = "sum"


class _AtTheImage(LayerMethod):
    reducer: ClassVar[Any]

    def requests(self, context: Context) -> tuple[GradientRequest, ...]:
        """One pass at the image."""
        return (GradientRequest(Original(), self.reducer, Plain(), self._taps(context)),)


@register
class LayerActivation(_AtTheImage):
    """What a layer computes for this image."""

    formula = "A"
    units = "activation"
    resampling: ClassVar[Resampling] = "value"
    windows: ClassVar[Assembly] = "blend"
    reducer = MeanValue
    name: Literal["layer_activation"] = "layer_activation"


@register
class VanillaLayerVisualization(_AtTheImage):
    """How much the score changes when an activation changes a little."""

    formula = "dS/dA"
    reference = "Simonyan et al., 2014"
    reducer = MeanGradient
    name: Literal["vanilla_layer_visualization"] = "vanilla_layer_visualization"


@register
class LayerGradientXActivation(_AtTheImage):
    """The activation times the gradient that acts on it."""

    formula = "A dS/dA"
    reference = "Shrikumar et al., 2016"
    units = "score"
    reducer = TimesValue
    name: Literal["layer_gradient_x_activation"] = "layer_gradient_x_activation"


@register
class LinearApproximation(_AtTheImage):
    """The first-order effect of each position of a layer, summed over its channels."""

    formula = "sum_k A_k dS/dA_k"
    reference = "Olah et al., 2018"
    units = "score"
    reducer = TimesValue
    name: Literal["linear_approximation"] = "linear_approximation"
    channels: Literal["keep", "sum", "sum_abs", "max_abs"] = "sum"
