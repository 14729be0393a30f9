"""Gradients along paths: integrated gradients, conductance, guided and blur paths."""

from __future__ import annotations

from functools import partial
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator
from torch import Tensor

from voxplain.attribution.methods.base import AtLayers
from voxplain.engine.baselines import Baseline
from voxplain.engine.context import Context
from voxplain.engine.gradients.path_samplers import BlurPath, GuidedPath
from voxplain.engine.gradients.quadrature import Quadrature
from voxplain.engine.gradients.reducers import (
    AlongCurve,
    AlongPath,
    MeanGradient,
    TimesDifference,
)
from voxplain.engine.gradients.refined_paths import (
    FIRST,
    DoubledPath,
    LayerPath,
    RefinedLayerPath,
    RefinedPath,
)
from voxplain.engine.gradients.samplers import RESIDUAL, Sampler, StraightPath
from voxplain.engine.method import Method, register
from voxplain.engine.requests import GradientRequest, Request
from voxplain.engine.rules import Plain
from voxplain.engine.stream_io import StreamResults
from voxplain.engine.taps import INPUT, Tap

Steps = Annotated[int, Field(ge=1)]
_STEPS = (
    "number of points on the path; auto doubles them, from 16 to at most 1024, until the "
    "completeness residual is below 1 %"
)


class _PathMethod(Method):
    """Gradients along a path to the image, whose sum can be held against the score."""

    units = "score"
    own_quadrature: ClassVar[bool] = True

    steps: Steps | Literal["auto"] = Field(default=32, description=_STEPS)

    @field_validator("steps", mode="before")
    @classmethod
    def _number_or_auto(cls, value: object) -> object:
        """Said here in one sentence, instead of once per type."""
        if isinstance(value, int) and value < 1:
            raise ValueError("input should be greater than or equal to 1")
        if isinstance(value, str) and value != "auto" and not value.isdigit():
            raise ValueError("input should be a number of at least 1, or auto")
        return value

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        given = self.own_quadrature and "quadrature" in self.model_fields_set
        if self.steps == "auto" and given:
            raise ValueError("steps: auto has a quadrature of its own; leave quadrature out")
        return self

    @property
    def residual_limit(self) -> float:
        """1 % where steps are added until it is reached."""
        return RESIDUAL if self.steps == "auto" else super().residual_limit


class _StraightPathMethod(_PathMethod):
    """Gradients on the straight line from a baseline to the image."""

    quadrature: Quadrature = "gauss_legendre"
    baseline: Baseline = "zero"

    def requests(self, context: Context) -> tuple[Request, ...]:
        """The points of one path, or of a path that is refined."""
        path = _straight_path(self.steps, self.quadrature, self.baseline)
        return (GradientRequest(path, TimesDifference),)


@register
class IntegratedGradients(_StraightPathMethod):
    """The share of each voxel in S(x) - S(baseline): gradients along the path between them."""

    formula = "(x - b) sum_i w_i g(b + a_i (x - b))"
    reference = "Sundararajan et al., 2017"
    name: Literal["integrated_gradients"] = "integrated_gradients"


@register
class LayerIntegratedGradients(AtLayers, _StraightPathMethod):
    """The share of each unit of a layer in the change of the score from the layer's baseline.

    Only the layer is interpolated; the rest of the network sees the image at every step.
    """

    formula = "(A(x) - A(b)) sum_i w_i G(A(b) + a_i (A(x) - A(b)))"
    reference = "Sundararajan et al., 2017"
    name: Literal["layer_integrated_gradients"] = "layer_integrated_gradients"

    def requests(self, context: Context) -> tuple[GradientRequest, ...]:
        """A path for each layer."""
        return tuple(
            GradientRequest(self._path_in(tap), TimesDifference, Plain(), (tap,))
            for tap in self.taps(context)
        )

    def maps(self, results: StreamResults, context: Context) -> dict[str | None, Tensor]:
        """One map per layer, each from its own stream."""
        return {tap.path: values for stream in results for tap, values in stream.items()}

    def _path_in(self, tap: Tap) -> Sampler:
        if self.steps == "auto":
            return RefinedLayerPath(self.baseline, layer=tap)
        return LayerPath(self.steps, self.quadrature, self.baseline, tap)


@register
class LayerConductance(AtLayers, _StraightPathMethod):
    """The share of S(x) - S(baseline) that flows through each unit of a layer."""

    formula = "sum_i G_i (A(a_{i+1}) - A(a_i)), a partition of the path with both ends"
    reference = "Dhamdhere et al., 2018"
    own_quadrature = False
    name: Literal["layer_conductance"] = "layer_conductance"

    def requests(self, context: Context) -> tuple[GradientRequest, ...]:
        """One path for all layers."""
        taps = self.taps(context)
        first = FIRST if self.steps == "auto" else self.steps
        path: Sampler = StraightPath(first, self.quadrature, self.baseline)
        if self.steps == "auto":
            path = DoubledPath(StraightPath(first, self.quadrature, self.baseline), taps)
        return (GradientRequest(path, AlongPath, Plain(), taps),)


@register
class InternalInfluence(AtLayers, Method):
    """The mean gradient at each unit of a layer on the path from a baseline to the image."""

    formula = "sum_i w_i G_i"
    reference = "Leino et al., 2018"
    units = "score per unit of activation"
    name: Literal["internal_influence"] = "internal_influence"
    steps: int = Field(default=32, ge=1)
    quadrature: Quadrature = "gauss_legendre"
    baseline: Baseline = "zero"

    def requests(self, context: Context) -> tuple[GradientRequest, ...]:
        """One path for all layers."""
        path = StraightPath(self.steps, self.quadrature, self.baseline)
        return (GradientRequest(path, MeanGradient, Plain(), self.taps(context)),)


@register
class IntegratedGradientsBlackWhite(_PathMethod):
    """Integrated gradients from the darkest and from the brightest image, averaged."""

    formula = "mean of integrated gradients with b = min x and b = max x"
    reference = "Kapishnikov et al., 2019"
    name: Literal["integrated_gradients_black_white"] = "integrated_gradients_black_white"
    quadrature: Quadrature = "gauss_legendre"

    def requests(self, context: Context) -> tuple[GradientRequest, ...]:
        """A path from each end of the intensity range."""
        return tuple(
            GradientRequest(_straight_path(self.steps, self.quadrature, baseline), TimesDifference)
            for baseline in ("minimum", "maximum")
        )

    def maps(self, results: StreamResults, context: Context) -> dict[str | None, Tensor]:
        """Their mean."""
        black, white = results
        return {None: (black[INPUT] + white[INPUT]) / 2}


@register
class GuidedIntegratedGradients(_PathMethod):
    """Integrated gradients on a path that moves the voxels with the smallest gradients first.

    The path avoids regions of large gradients that do not change the score in the end. Every point
    depends on the gradients before it, so that points are evaluated one after the other.
    """

    formula = "sum_i (x_{i+1} - x_i) (g(x_i) + g(x_{i+1})) / 2 on the guided path"
    reference = "Kapishnikov et al., 2021"
    own_quadrature = False
    name: Literal["guided_integrated_gradients"] = "guided_integrated_gradients"
    steps: Steps | Literal["auto"] = Field(default=64, description=_STEPS)
    fraction: float = Field(
        default=0.25, gt=0, le=1, description="share of the voxels that is moved at a time"
    )
    max_distance: float = Field(
        default=0.02, ge=0, le=1, description="from the straight path, as a fraction of it"
    )
    quadrature: Literal["trapezoid", "left"] = Field(
        default="trapezoid", description="left takes the gradient before each step, as published"
    )
    baseline: Baseline = "zero"

    def requests(self, context: Context) -> tuple[GradientRequest, ...]:
        first = FIRST if self.steps == "auto" else self.steps
        guided = GuidedPath(first, self.fraction, self.max_distance, self.baseline)
        path = DoubledPath(guided, (INPUT,)) if self.steps == "auto" else guided
        ahead = 0.5 if self.quadrature == "trapezoid" else 0.0
        return (GradientRequest(path, partial(AlongCurve, ahead)),)


@register
class BlurIntegratedGradients(_PathMethod):
    """The share of each voxel in S(x) - S(blurred x): gradients as the image is sharpened.

    No baseline is chosen: the path starts at the image under the strongest blur, ``sigma_max``.
    Differences of neighboring blurs stand for d x_sigma / d sigma, so that the map of a linear
    score has no error.
    """

    formula = "- integral of g(x_sigma) d x_sigma/d sigma over sigma from 0 to sigma_max"
    reference = "Xu et al., 2020"
    name: Literal["blur_integrated_gradients"] = "blur_integrated_gradients"
    sigma_max: float = Field(
        default=0.2, gt=0, le=1, description="strongest blur, as a fraction of the shortest axis"
    )

    def requests(self, context: Context) -> tuple[GradientRequest, ...]:
        """A path of blurs, isotropic in mm where the spacing is known."""
        first = FIRST if self.steps == "auto" else self.steps
        blurs = BlurPath(first, self.sigma_max, context.spacing)
        path = DoubledPath(blurs, (INPUT,)) if self.steps == "auto" else blurs
        return (GradientRequest(path, AlongCurve),)


def _straight_path(
    steps: int | Literal["auto"], quadrature: Quadrature, baseline: Baseline
) -> Sampler:
    """The line from a baseline, refined where the number of steps is open."""
    if steps == "auto":
        return RefinedPath(baseline)
    return StraightPath(steps, quadrature, baseline)
