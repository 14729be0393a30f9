"""Expected gradients: path gradients averaged over reference images as baselines."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from voxplain.attribution.methods.base import AtLayers
from voxplain.engine.context import Context
from voxplain.engine.gradients.reducers import TimesDifference
from voxplain.engine.gradients.samplers import RandomPathPoint
from voxplain.engine.method import Method, register
from voxplain.engine.requests import GradientRequest, Request


@register
class ExpectedGradients(Method):
    """Integrated gradients averaged over reference images as baselines."""

    formula = "E[(x - r) g(r + a (x - r))] over references r and a ~ U(0, 1)"
    reference = "Erion et al., 2021"
    units = "score"
    name: Literal["expected_gradients"] = "expected_gradients"
    samples: int = Field(default=64, ge=1)

    def requests(self, context: Context) -> tuple[GradientRequest, ...]:
        return (GradientRequest(RandomPathPoint(self.samples), TimesDifference),)


class _RandomPathMethod(Method):
    """Path gradients at random points between references and noisy copies of the image."""

    units = "score"

    samples: int = Field(default=32, ge=1)
    sigma: float = Field(default=0.05, ge=0)

    def requests(self, context: Context) -> tuple[Request, ...]:
        sampler = RandomPathPoint(self.samples, self.sigma)
        return (GradientRequest(sampler, TimesDifference),)


@register
class GradientShap(_RandomPathMethod):
    """Path gradients averaged over reference images and noisy copies of the image."""

    formula = "E[(x' - r) g(r + a (x' - r))], x' = x + noise"
    reference = "Lundberg and Lee, 2017; Erion et al., 2021"
    name: Literal["gradient_shap"] = "gradient_shap"


@register
class LayerGradientShap(AtLayers, _RandomPathMethod):
    """Gradient SHAP at a layer: path gradients averaged over references and noisy copies."""

    formula = "E[(A(x') - A(r)) G(r + a (x' - r))], x' = x + noise"
    reference = "Lundberg and Lee, 2017"
    name: Literal["layer_gradient_shap"] = "layer_gradient_shap"
