"""Guided backpropagation and deconvolution: gradients with other rules at rectifiers."""

from __future__ import annotations

from typing import Literal

from voxplain.attribution.methods.base import FromLayer, OnePassMethod
from voxplain.engine.context import Context
from voxplain.engine.gradients.reducers import MeanGradient
from voxplain.engine.gradients.samplers import Original
from voxplain.engine.method import register
from voxplain.engine.requests import GradientRequest
from voxplain.engine.rules import Deconvnet, Guided, Rule
from voxplain.engine.taps import INPUT
from voxplain.targets import Unit

Functions = Literal["rectifiers", "relu_only"]
"""Functions that count as rectifiers: all of them, or ReLU alone as in some libraries."""


@register
class GuidedBackprop(OnePassMethod):
    """The gradient, passed back by rectifiers only where input and gradient are positive."""

    family = "rule"
    formula = "dS/dx with max(0, q) max(0, f'(x)) at every rectifier"
    reference = "Springenberg et al., 2015"
    name: Literal["guided_backprop"] = "guided_backprop"
    functions: Functions = "rectifiers"

    def rule(self) -> Rule:
        return Guided(functions=self.functions)


@register
class LayerActivationGuidedBackprop(FromLayer):
    """Guided backpropagation from one channel of a layer: what in the image activates it.

    The channel is explained instead of the target of the call.
    """

    family = "layer"
    formula = "d(sum or max of A_k)/dx with guided rectifiers"
    reference = "Springenberg et al., 2015"
    units = "activation per unit of intensity"
    name: Literal["layer_activation_guided_backprop"] = "layer_activation_guided_backprop"
    channel: int | Literal["strongest"] = "strongest"
    position: Literal["all", "max"] | tuple[int, ...] = "all"
    functions: Functions = "rectifiers"

    def requests(self, context: Context) -> tuple[GradientRequest, ...]:
        layer = self.tap(context).path
        unit = Unit(layer=layer, channel=self.channel, position=self.position)
        rule = Guided(functions=self.functions)
        return (GradientRequest(Original(), MeanGradient, rule, (INPUT,), target=unit),)


@register
class Deconvolution(OnePassMethod):
    """The gradient, passed back by rectifiers only where it is positive."""

    family = "rule"
    formula = "dS/dx with max(0, q) at every rectifier"
    reference = "Zeiler and Fergus, 2014"
    name: Literal["deconvolution"] = "deconvolution"
    functions: Functions = "rectifiers"

    def rule(self) -> Rule:
        return Deconvnet(functions=self.functions)
