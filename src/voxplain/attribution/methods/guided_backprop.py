"""Guided backpropagation and deconvolution: gradients with other rules at rectifiers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from voxplain.attribution.methods.saliency import _OneGradient
from voxplain.engine.context import Context
from voxplain.engine.gradients.reducers import MeanGradient
from voxplain.engine.gradients.samplers import Original
from voxplain.engine.method import Method, register
from voxplain.engine.requests import GradientRequest
from voxplain.engine.rules import Deconvnet, Guided, Rule
from voxplain.engine.taps import INPUT
from voxplain.targets import Unit

Functions = Literal["rectifiers", "relu_only"]
"""Which functions count as rectifiers: all of them, or ReLU alone as some libraries have it."""


@register
class GuidedBackprop(_OneGradient):
    """The gradient along paths where every rectifier is open and evidence is positive."""

    family = "rule"
    formula = "dS/dx with max(0, q) max(0, f'(x)) at every rectifier"
    reference = "Springenberg et al., 2015"
    name: Literal["guided_backprop"] = "guided_backprop"
    functions: Functions = "rectifiers"

    def _rule(self) -> Rule:
        return Guided(functions=self.functions)


@register
class Deconvolution(_OneGradient):
    """The gradient with only positive evidence passed back through rectifiers."""

    family = "rule"
    formula = "dS/dx with max(0, q) at every rectifier"
    reference = "Zeiler and Fergus, 2014"
    name: Literal["deconvolution"] = "deconvolution"
    functions: Functions = "rectifiers"

    def _rule(self) -> Rule:
        return Deconvnet(functions=self.functions)


@register
class LayerActivationGuidedBackprop(Method):
    """What in the image drives one channel of a layer, along open rectifiers.

    The class target is not used: what is explained is the unit.
    """

    family = "layer"
    formula = "d(sum or max of A_k)/dx with guided rectifiers"
    reference = "Springenberg et al., 2015"
    units = "activation per unit of intensity"
    name: Literal["layer_activation_guided_backprop"] = "layer_activation_guided_backprop"
    layer: str | None = Field(default=None, description="path; absent: the last feature layer")
    channel: int | Literal["strongest"] = "strongest"
    position: Literal["all", "max"] | tuple[int, ...] = "all"
    functions: Functions = "rectifiers"

    def requests(self, context: Context) -> tuple[GradientRequest, ...]:
        """One guided pass from the unit."""
        (tap,) = context.taps((self.layer,) if self.layer else ())
        unit = Unit(layer=tap.path, channel=self.channel, position=self.position)
        rule = Guided(functions=self.functions)
        return (GradientRequest(Original(), MeanGradient, rule, (INPUT,), target=unit),)
