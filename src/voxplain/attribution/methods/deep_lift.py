"""DeepLIFT: the difference from a baseline, propagated through the network by multipliers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from voxplain.attribution.methods.base import AtLayers
from voxplain.engine.baselines import Baseline
from voxplain.engine.context import Context
from voxplain.engine.gradients.reducers import TimesDifference
from voxplain.engine.gradients.samplers import PairedReference, Sampler
from voxplain.engine.method import Method, register
from voxplain.engine.requests import GradientRequest, Request
from voxplain.engine.rules import DeepLiftRule
from voxplain.engine.rules.deep_lift.rule import Nonlinearity

FloatType = Literal["auto", "float32", "float64"]
"""``auto`` is float64 for networks with norms of the data, where differences would cancel."""

_RULE = (
    "at nonlinearities; reveal_cancel gives positive and negative contributions of the affine map "
    "before them multipliers of their own"
)


class _BaselineDeepLift(Method):
    """DeepLIFT from one baseline."""

    family = "rule"
    reference = "Shrikumar et al., 2017"
    units = "score"
    revision = 2

    baseline: Baseline = "zero"
    rule: Nonlinearity = Field(default="rescale", description=_RULE)
    eps: float | None = Field(default=None, gt=0)
    precision: FloatType = "auto"

    def requests(self, context: Context) -> tuple[Request, ...]:
        return (_request(self, PairedReference(self.baseline), context),)


@register
class DeepLift(_BaselineDeepLift):
    """The share of each voxel in S(x) - S(baseline), by DeepLIFT."""

    formula = "(x - b) m, multipliers m by finite differences at every nonlinearity"
    name: Literal["deep_lift"] = "deep_lift"


@register
class LayerDeepLift(AtLayers, _BaselineDeepLift):
    """The share of each unit of a layer in S(x) - S(baseline), by DeepLIFT."""

    formula = "(A(x) - A(b)) m at the layer"
    name: Literal["layer_deep_lift"] = "layer_deep_lift"


class _ReferenceDeepLift(Method):
    """DeepLIFT averaged over reference images as baselines."""

    family = "rule"
    reference = "Lundberg and Lee, 2017"
    units = "score"
    revision = 2

    references: int = Field(default=8, ge=2)
    rule: Nonlinearity = Field(default="rescale", description=_RULE)
    eps: float | None = Field(default=None, gt=0)
    precision: FloatType = "auto"

    def requests(self, context: Context) -> tuple[Request, ...]:
        return (_request(self, PairedReference(None, self.references), context),)


@register
class DeepLiftShap(_ReferenceDeepLift):
    """DeepLIFT averaged over reference images as baselines."""

    formula = "mean_k (x - b_k) m_k"
    name: Literal["deep_lift_shap"] = "deep_lift_shap"


@register
class LayerDeepLiftShap(AtLayers, _ReferenceDeepLift):
    """DeepLIFT at a layer, averaged over reference images as baselines."""

    formula = "mean_k (A(x) - A(b_k)) m_k at the layer"
    name: Literal["layer_deep_lift_shap"] = "layer_deep_lift_shap"


def _request(
    method: _BaselineDeepLift | _ReferenceDeepLift, sampler: Sampler, context: Context
) -> GradientRequest:
    """A DeepLIFT stream; in float64 where norms would cancel."""
    automatic = method.precision == "auto" and context.layers.has_data_norms
    return GradientRequest(
        sampler,
        TimesDifference,
        DeepLiftRule(method.rule, method.eps),
        double=method.precision == "float64" or automatic,
    )
