"""Gradients along paths: integrated gradients, conductance, guided and blur paths."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from voxplain.attribution.methods.layer_method import LayerMethod
from voxplain.engine.baselines import Baseline
from voxplain.engine.context import Context
from voxplain.engine.gradients.path_samplers import BlurPath, GuidedPath, LayerPath
from voxplain.engine.gradients.quadrature import Quadrature
from voxplain.engine.gradients.reducers import AlongCurve, AlongPath, MeanGradient, TimesDifference
from voxplain.engine.gradients.samplers import Sampler, StraightPath
from voxplain.engine.method import Method, register
from voxplain.engine.requests import GradientRequest
from voxplain.engine.rules import Plain
from voxplain.engine.stream_io import StreamResults
from voxplain.engine.taps import INPUT


@register
class BlurIntegratedGradients(Method):
    """What each voxel adds to the score as the image comes into focus; no baseline is chosen.

    The map sums to S(x) - S(x blurred with ``sigma_max``). Changes between neighboring blurs
    stand in place of d x_sigma / d sigma, so that a linear score has no error.
    """

    formula = "- integral of g(x_sigma) d x_sigma/d sigma over sigma from 0 to sigma_max"
    reference = "Xu et al., 2020"
    units = "score"
    name: Literal["blur_integrated_gradients"] = "blur_integrated_gradients"
    steps: int = Field(default=32, ge=1)
    sigma_max: float = Field(
        default=0.2, gt=0, le=1, description="strongest blur, as a fraction of the shortest axis"
    )

    def requests(self, context: Context) -> tuple[GradientRequest, ...]:
        """One path through scale; isotropic in mm where the spacing is known."""
        return (GradientRequest(BlurPath(self.steps, self.sigma_max, context.spacing), AlongCurve),)


@register
class GuidedIntegratedGradients(Method):
    """Integrated gradients on a path that first moves what the score reacts to least.

    The path avoids places where gradients are large but lead nowhere. The points depend on each
    other, so that they are evaluated one after the other.
    """

    formula = "sum_i (x_{i+1} - x_i) (g(x_i) + g(x_{i+1})) / 2 on the guided path"
    reference = "Kapishnikov et al., 2021"
    units = "score"
    name: Literal["guided_integrated_gradients"] = "guided_integrated_gradients"
    steps: int = Field(default=64, ge=1)
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
        """One adaptive path."""
        path = GuidedPath(self.steps, self.fraction, self.max_distance, self.baseline)
        ahead = 0.5 if self.quadrature == "trapezoid" else 0.0
        return (GradientRequest(path, partial(AlongCurve, ahead)),)


@register
class LayerIntegratedGradients(LayerMethod):
    """What each unit of a layer adds to the score on its way from a baseline to the image.

    Only the layer moves; whatever goes around it sees the image all along.
    """

    formula = "(A(x) - A(b)) sum_i w_i G(A(b) + a_i (A(x) - A(b)))"
    reference = "Sundararajan et al., 2017"
    units = "score"
    name: Literal["layer_integrated_gradients"] = "layer_integrated_gradients"
    steps: int = Field(default=32, ge=1)
    quadrature: Quadrature = "gauss_legendre"
    baseline: Baseline = "zero"

    def requests(self, context: Context) -> tuple[GradientRequest, ...]:
        """One path per layer."""
        return tuple(
            GradientRequest(
                LayerPath(self.steps, self.quadrature, self.baseline, tap),
                TimesDifference,
                Plain(),
                (tap,),
            )
            for tap in self._taps(context)
        )

    def maps(self, results: StreamResults, context: Context) -> dict[str | None, Tensor]:
        """One map per layer."""
        return {tap.path: map for stream in results for tap, map in stream.items()}


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

    def requests(self, context: Context) -> tuple[GradientRequest, ...]:
        """One path."""
        return (GradientRequest(self._path(self.baseline), TimesDifference),)


@register
class IntegratedGradientsBlackWhite(_Path):
    """Integrated gradients from the darkest and from the brightest image, averaged."""

    formula = "mean of integrated gradients with b = min x and b = max x"
    reference = "Kapishnikov et al., 2019"
    units = "score"
    name: Literal["integrated_gradients_black_white"] = "integrated_gradients_black_white"

    def requests(self, context: Context) -> tuple[GradientRequest, ...]:
        """Two paths."""
        return tuple(
            GradientRequest(self._path(baseline), TimesDifference)
            for baseline in ("minimum", "maximum")
        )

    def maps(self, results: StreamResults, context: Context) -> dict[str | None, Tensor]:
        """Their mean."""
        black, white = results
        return {None: (black[INPUT] + white[INPUT]) / 2}


class _OnPath(LayerMethod):
    steps: int = Field(default=32, ge=1)
    quadrature: Quadrature = "gauss_legendre"
    baseline: Baseline = "zero"
    reducer: ClassVar[Any]

    def requests(self, context: Context) -> tuple[GradientRequest, ...]:
        """One path."""
        path = StraightPath(self.steps, self.quadrature, self.baseline)
        return (GradientRequest(path, self.reducer, Plain(), self._taps(context)),)


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
