"""Expected gradients: path gradients averaged over reference images as baselines."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from voxplain.attribution.methods.layer_method import LayerMethod
from voxplain.engine.context import Context
from voxplain.engine.gradients.reducers import TimesDifference
from voxplain.engine.gradients.samplers import RandomPathPoint
from voxplain.engine.method import Method, register
from voxplain.engine.requests import GradientRequest
from voxplain.engine.rules import Plain


@register
class GradientShap(Method):
    """Expected path gradients from other images to noisy copies of this one."""

    formula = "E[(x' - r) g(r + a (x' - r))], x' = x + noise"
    reference = "Lundberg and Lee, 2017; Erion et al., 2021"
    units = "score"
    name: Literal["gradient_shap"] = "gradient_shap"
    samples: int = Field(default=32, ge=1)
    sigma: float = Field(default=0.05, ge=0)

    def requests(self, context: Context) -> tuple[GradientRequest, ...]:
        """Random points on random paths."""
        return (GradientRequest(RandomPathPoint(self.samples, self.sigma), TimesDifference),)


@register
class ExpectedGradients(Method):
    """Integrated gradients averaged over other images as baselines."""

    formula = "E[(x - r) g(r + a (x - r))] over references r and a ~ U(0, 1)"
    reference = "Erion et al., 2021"
    units = "score"
    name: Literal["expected_gradients"] = "expected_gradients"
    samples: int = Field(default=64, ge=1)

    def requests(self, context: Context) -> tuple[GradientRequest, ...]:
        """Random points on straight paths from the references."""
        return (GradientRequest(RandomPathPoint(self.samples), TimesDifference),)


@register
class LayerGradientShap(LayerMethod):
    """Expected path gradients from other images, read off at a layer."""

    formula = "E[(A(x') - A(r)) G(r + a (x' - r))], x' = x + noise"
    reference = "Lundberg and Lee, 2017"
    units = "score"
    name: Literal["layer_gradient_shap"] = "layer_gradient_shap"
    samples: int = Field(default=32, ge=1)
    sigma: float = Field(default=0.05, ge=0)

    def requests(self, context: Context) -> tuple[GradientRequest, ...]:
        """Random points on random paths."""
        sampler = RandomPathPoint(self.samples, self.sigma)
        return (GradientRequest(sampler, TimesDifference, Plain(), self._taps(context)),)
