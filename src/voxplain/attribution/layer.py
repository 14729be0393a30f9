"""Layer methods: the same streams, reduced at tapped layers, at the layer's own resolution."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator
from torch import Tensor

from voxplain.attribution.baselines import Baseline
from voxplain.attribution.gradient import Functions, deep_lift_request
from voxplain.attribution.method import Method, Request, Resampling, Results, register
from voxplain.attribution.passes import INPUT
from voxplain.attribution.quadrature import Quadrature
from voxplain.attribution.reducers import (
    AlongPath,
    MeanGradient,
    MeanValue,
    TimesDifference,
    TimesValue,
)
from voxplain.attribution.rules import Guided, Plain
from voxplain.attribution.samplers import (
    Original,
    PairedReference,
    RandomPathPoint,
    StraightPath,
)
from voxplain.attribution.scene import Assembly, Scene
from voxplain.attribution.taps import Tap
from voxplain.targets import Unit


class LayerMethod(Method):
    """A method whose maps live on layers.

    Attributes:
        layers: Paths as in ``get_submodule``; none is the last feature layer, ``all`` every leaf.
        side: What enters or what leaves a layer.
        windows: How the windows of a windowed network come together on the image.
    """

    windows: ClassVar[Assembly] = "sum"

    family: ClassVar[str] = "layer"
    units: ClassVar[str] = "score per unit of activation"

    layers: tuple[str, ...] | str = Field(
        default=(), description="paths; absent: the last feature layer"
    )
    side: Literal["output", "input"] = "output"

    @field_validator("layers")
    @classmethod
    def _always_several(cls, value: tuple[str, ...] | str) -> tuple[str, ...]:
        return (value,) if isinstance(value, str) else value

    def _taps(self, scene: Scene) -> tuple[Tap, ...]:
        return scene.taps(tuple(self.layers), self.side)

    def maps(self, results: Results, scene: Scene) -> dict[str | None, Tensor]:
        """One map per layer."""
        return {tap.path: map for tap, map in results[0].items()}


class _AtTheImage(LayerMethod):
    reducer: ClassVar[Any]

    def requests(self, scene: Scene) -> tuple[Request, ...]:
        """One pass at the image."""
        return (Request(Original(), self.reducer, Plain(), self._taps(scene)),)


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


class _OnPath(LayerMethod):
    steps: int = Field(default=32, ge=1)
    quadrature: Quadrature = "gauss_legendre"
    baseline: Baseline = "zero"
    reducer: ClassVar[Any]

    def requests(self, scene: Scene) -> tuple[Request, ...]:
        """One path."""
        path = StraightPath(self.steps, self.quadrature, self.baseline)
        return (Request(path, self.reducer, Plain(), self._taps(scene)),)


@register
class LayerConductance(_OnPath):
    """What flows through each unit of a layer on the way from a baseline to the image."""

    formula = "sum_i G_i (A(a_{i+1}) - A(a_i)), a partition of the path with both ends"
    reference = "Dhamdhere et al., 2018"
    units = "score"
    reducer = AlongPath
    name: Literal["layer_conductance"] = "layer_conductance"


@register
class InternalInfluence(_OnPath):
    """The mean gradient at a layer on the way from a baseline to the image."""

    formula = "sum_i w_i G_i"
    reference = "Leino et al., 2018"
    reducer = MeanGradient
    name: Literal["internal_influence"] = "internal_influence"


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

    def requests(self, scene: Scene) -> tuple[Request, ...]:
        """One pair of forwards."""
        sampler = PairedReference(self.baseline)
        return (deep_lift_request(self, scene, sampler, self._taps(scene)),)


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

    def requests(self, scene: Scene) -> tuple[Request, ...]:
        """One pair of forwards per reference."""
        sampler = PairedReference(None, self.references)
        return (deep_lift_request(self, scene, sampler, self._taps(scene)),)


@register
class LayerGradientShap(LayerMethod):
    """Expected path gradients from other images, read off at a layer."""

    formula = "E[(A(x') - A(r)) G(r + a (x' - r))], x' = x + noise"
    reference = "Lundberg and Lee, 2017"
    units = "score"
    name: Literal["layer_gradient_shap"] = "layer_gradient_shap"
    samples: int = Field(default=32, ge=1)
    sigma: float = Field(default=0.05, ge=0)

    def requests(self, scene: Scene) -> tuple[Request, ...]:
        """Random points on random paths."""
        sampler = RandomPathPoint(self.samples, self.sigma)
        return (Request(sampler, TimesDifference, Plain(), self._taps(scene)),)


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

    def requests(self, scene: Scene) -> tuple[Request, ...]:
        """One guided pass from the unit."""
        (tap,) = scene.taps((self.layer,) if self.layer else ())
        unit = Unit(layer=tap.path, channel=self.channel, position=self.position)
        rule = Guided(functions=self.functions)
        return (Request(Original(), MeanGradient, rule, (INPUT,), target=unit),)
