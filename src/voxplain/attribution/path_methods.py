"""Methods of curved paths: blur, guided and layer integrated gradients."""

from __future__ import annotations

from functools import partial
from typing import Literal

from pydantic import Field
from torch import Tensor

from voxplain.attribution.baselines import Baseline
from voxplain.attribution.layer import LayerMethod
from voxplain.attribution.method import Method, Request, Results, register
from voxplain.attribution.paths import BlurPath, GuidedPath, LayerPath
from voxplain.attribution.quadrature import Quadrature
from voxplain.attribution.reducers import AlongCurve, TimesDifference
from voxplain.attribution.rules import Plain
from voxplain.attribution.scene import Scene


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

    def requests(self, scene: Scene) -> tuple[Request, ...]:
        """One path through scale; isotropic in mm where the spacing is known."""
        return (Request(BlurPath(self.steps, self.sigma_max, scene.spacing), AlongCurve),)


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

    def requests(self, scene: Scene) -> tuple[Request, ...]:
        """One adaptive path."""
        path = GuidedPath(self.steps, self.fraction, self.max_distance, self.baseline)
        ahead = 0.5 if self.quadrature == "trapezoid" else 0.0
        return (Request(path, partial(AlongCurve, ahead)),)


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

    def requests(self, scene: Scene) -> tuple[Request, ...]:
        """One path per layer."""
        return tuple(
            Request(
                LayerPath(self.steps, self.quadrature, self.baseline, tap),
                TimesDifference,
                Plain(),
                (tap,),
            )
            for tap in self._taps(scene)
        )

    def maps(self, results: Results, scene: Scene) -> dict[str | None, Tensor]:
        """One map per layer."""
        return {tap.path: map for stream in results for tap, map in stream.items()}
