"""DeepLIFT: the difference from a baseline, propagated through the network by multipliers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from voxplain.attribution.methods.layer_method import LayerMethod
from voxplain.engine.baselines import Baseline
from voxplain.engine.context import Context
from voxplain.engine.gradients.reducers import TimesDifference
from voxplain.engine.gradients.samplers import PairedReference, Sampler
from voxplain.engine.method import Method, register
from voxplain.engine.requests import GradientRequest
from voxplain.engine.rules import DeepLift
from voxplain.engine.taps import INPUT


@register
class DeepLiftMethod(Method):
    """How the difference from a baseline travels through the network, by the Rescale rule."""

    family = "rule"
    formula = "(x - b) m, multipliers m by finite differences at every nonlinearity"
    reference = "Shrikumar et al., 2017"
    units = "score"
    name: Literal["deep_lift"] = "deep_lift"
    baseline: Baseline = "zero"
    eps: float | None = Field(default=None, gt=0)
    precision: Literal["auto", "float32", "float64"] = "auto"

    def requests(self, context: Context) -> tuple[GradientRequest, ...]:
        """One pair of forwards."""
        sampler = PairedReference(self.baseline)
        return (deep_lift_request(self, context, sampler),)


@register
class DeepLiftShap(Method):
    """DeepLIFT averaged over other images as baselines."""

    family = "rule"
    formula = "mean_k (x - b_k) m_k"
    reference = "Lundberg and Lee, 2017"
    units = "score"
    name: Literal["deep_lift_shap"] = "deep_lift_shap"
    references: int = Field(default=8, ge=2)
    eps: float | None = Field(default=None, gt=0)
    precision: Literal["auto", "float32", "float64"] = "auto"

    def requests(self, context: Context) -> tuple[GradientRequest, ...]:
        """One pair of forwards per reference."""
        return (deep_lift_request(self, context, PairedReference(None, self.references)),)


def deep_lift_request(
    method: Any, context: Context, sampler: Sampler, places: Any = (INPUT,)
) -> GradientRequest:
    """A DeepLIFT stream; in float64 where norms would cancel."""
    double = method.precision == "float64" or (
        method.precision == "auto" and context.has_data_norms
    )
    rule = DeepLift(eps=method.eps)
    return GradientRequest(sampler, TimesDifference, rule, tuple(places), double=double)


@register
class LayerDeepLift(LayerMethod):
    """DeepLIFT, read off at a layer."""

    formula = "(A(x) - A(b)) m at the layer"
    reference = "Shrikumar et al., 2017"
    units = "score"
    name: Literal["layer_deep_lift"] = "layer_deep_lift"
    baseline: Baseline = "zero"
    eps: float | None = Field(default=None, gt=0)
    precision: Literal["auto", "float32", "float64"] = "auto"

    def requests(self, context: Context) -> tuple[GradientRequest, ...]:
        """One pair of forwards."""
        sampler = PairedReference(self.baseline)
        return (deep_lift_request(self, context, sampler, self._taps(context)),)


@register
class LayerDeepLiftShap(LayerMethod):
    """DeepLIFT averaged over other images as baselines, read off at a layer."""

    formula = "mean_k (A(x) - A(b_k)) m_k at the layer"
    reference = "Lundberg and Lee, 2017"
    units = "score"
    name: Literal["layer_deep_lift_shap"] = "layer_deep_lift_shap"
    references: int = Field(default=8, ge=2)
    eps: float | None = Field(default=None, gt=0)
    precision: Literal["auto", "float32", "float64"] = "auto"

    def requests(self, context: Context) -> tuple[GradientRequest, ...]:
        """One pair of forwards per reference."""
        sampler = PairedReference(None, self.references)
        return (deep_lift_request(self, context, sampler, self._taps(context)),)
