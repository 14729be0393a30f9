"""Gradient methods: each a sampler, a rule and a reducer."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from voxplain.attribution.baselines import Baseline
from voxplain.attribution.method import Method, Request, Results, register
from voxplain.attribution.passes import INPUT
from voxplain.attribution.quadrature import Quadrature
from voxplain.attribution.reducers import MeanGradient, TimesDifference, TimesValue
from voxplain.attribution.rules import Deconvnet, DeepLift, Guided, Plain, Rule
from voxplain.attribution.samplers import (
    Original,
    PairedReference,
    RandomPathPoint,
    Sampler,
    StraightPath,
)
from voxplain.attribution.scene import Scene

Functions = Literal["rectifiers", "relu_only"]
"""Which functions count as rectifiers: all of them, or ReLU alone as some libraries have it."""


class _OneGradient(Method):
    """A gradient at the image itself."""

    reducer: ClassVar[Any] = MeanGradient

    def requests(self, scene: Scene) -> tuple[Request, ...]:
        """One pass at the image."""
        return (Request(Original(), self.reducer, self._rule()),)

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


class _Path(Method):
    """Gradients collected on the straight line from a baseline."""

    steps: int = Field(default=32, ge=1)
    quadrature: Quadrature = "gauss_legendre"

    def _path(self, baseline: Any) -> Sampler:
        return StraightPath(self.steps, self.quadrature, baseline)


@register
class IntegratedGradients(_Path):
    """What each voxel adds to the score on the way from a baseline to the image."""

    formula = "(x - b) sum_i w_i g(b + a_i (x - b))"
    reference = "Sundararajan et al., 2017"
    units = "score"
    name: Literal["integrated_gradients"] = "integrated_gradients"
    baseline: Baseline = "zero"

    def requests(self, scene: Scene) -> tuple[Request, ...]:
        """One path."""
        return (Request(self._path(self.baseline), TimesDifference),)


@register
class IntegratedGradientsBlackWhite(_Path):
    """Integrated gradients from the darkest and from the brightest image, averaged."""

    formula = "mean of integrated gradients with b = min x and b = max x"
    reference = "Kapishnikov et al., 2019"
    units = "score"
    name: Literal["integrated_gradients_black_white"] = "integrated_gradients_black_white"

    def requests(self, scene: Scene) -> tuple[Request, ...]:
        """Two paths."""
        return tuple(
            Request(self._path(baseline), TimesDifference) for baseline in ("minimum", "maximum")
        )

    def maps(self, results: Results, scene: Scene) -> dict[str | None, Tensor]:
        """Their mean."""
        black, white = results
        return {None: (black[INPUT] + white[INPUT]) / 2}


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

    def requests(self, scene: Scene) -> tuple[Request, ...]:
        """One pair of forwards."""
        sampler = PairedReference(self.baseline)
        return (deep_lift_request(self, scene, sampler),)


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

    def requests(self, scene: Scene) -> tuple[Request, ...]:
        """One pair of forwards per reference."""
        return (deep_lift_request(self, scene, PairedReference(None, self.references)),)


def deep_lift_request(
    method: Any, scene: Scene, sampler: Sampler, places: Any = (INPUT,)
) -> Request:
    """A DeepLIFT stream; in float64 where norms would cancel."""
    double = method.precision == "float64" or (method.precision == "auto" and scene.has_data_norms)
    rule = DeepLift(eps=method.eps)
    return Request(sampler, TimesDifference, rule, tuple(places), double=double)


@register
class GradientShap(Method):
    """Expected path gradients from other images to noisy copies of this one."""

    formula = "E[(x' - r) g(r + a (x' - r))], x' = x + noise"
    reference = "Lundberg and Lee, 2017; Erion et al., 2021"
    units = "score"
    name: Literal["gradient_shap"] = "gradient_shap"
    samples: int = Field(default=32, ge=1)
    sigma: float = Field(default=0.05, ge=0)

    def requests(self, scene: Scene) -> tuple[Request, ...]:
        """Random points on random paths."""
        return (Request(RandomPathPoint(self.samples, self.sigma), TimesDifference),)


@register
class ExpectedGradients(Method):
    """Integrated gradients averaged over other images as baselines."""

    formula = "E[(x - r) g(r + a (x - r))] over references r and a ~ U(0, 1)"
    reference = "Erion et al., 2021"
    units = "score"
    name: Literal["expected_gradients"] = "expected_gradients"
    samples: int = Field(default=64, ge=1)

    def requests(self, scene: Scene) -> tuple[Request, ...]:
        """Random points on straight paths from the references."""
        return (Request(RandomPathPoint(self.samples), TimesDifference),)
