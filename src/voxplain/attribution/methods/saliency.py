"""Gradients at the image or at a layer: saliency, input times gradient, layer activations."""

from __future__ import annotations

from typing import Literal

from voxplain.attribution.methods.base import AtLayers, OnePassMethod
from voxplain.engine.gradients.reducers import MeanValue, TimesValue
from voxplain.engine.method import ChannelReduction, register


@register
class Saliency(OnePassMethod):
    """How much the score changes with a small change of each voxel."""

    formula = "dS/dx"
    reference = "Simonyan et al., 2014"
    name: Literal["saliency"] = "saliency"


@register
class VanillaBackprop(OnePassMethod):
    """How much the score changes with a small change of each voxel (saliency by another name)."""

    formula = "dS/dx"
    reference = "Simonyan et al., 2014"
    name: Literal["vanilla_backprop"] = "vanilla_backprop"


@register
class VanillaLayerVisualization(AtLayers, OnePassMethod):
    """How much the score changes with a small change of each activation of a layer."""

    formula = "dS/dA"
    reference = "Simonyan et al., 2014"
    units = "score per unit of activation"
    name: Literal["vanilla_layer_visualization"] = "vanilla_layer_visualization"


class _TimesGradient(OnePassMethod):
    """Intensity or activation times the gradient there."""

    reference = "Shrikumar et al., 2016"
    units = "score"
    reducer = TimesValue


@register
class InputXGradient(_TimesGradient):
    """The intensity of each voxel times the gradient there."""

    formula = "x dS/dx"
    name: Literal["input_x_gradient"] = "input_x_gradient"


@register
class GradientTimesImage(_TimesGradient):
    """The intensity of each voxel times the gradient there, summed over channels."""

    formula = "sum over channels of x dS/dx"
    name: Literal["gradient_times_image"] = "gradient_times_image"
    channels: ChannelReduction = "sum"


@register
class LayerGradientXActivation(AtLayers, _TimesGradient):
    """The activation of each unit of a layer times the gradient there."""

    formula = "A dS/dA"
    name: Literal["layer_gradient_x_activation"] = "layer_gradient_x_activation"


@register
class LinearApproximation(AtLayers, _TimesGradient):
    """The first-order effect of each position of a layer, summed over its channels."""

    formula = "sum_k A_k dS/dA_k"
    reference = "Olah et al., 2018"
    name: Literal["linear_approximation"] = "linear_approximation"
    channels: ChannelReduction = "sum"


@register
class LayerActivation(AtLayers, OnePassMethod):
    """The activations of a layer for this image, whatever the target."""

    formula = "A"
    units = "activation"
    resampling = "value"
    window_assembly = "blend"
    reducer = MeanValue
    name: Literal["layer_activation"] = "layer_activation"
