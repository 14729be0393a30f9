"""LIME and a piecewise linear surrogate: models of the score over coalitions of regions."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from voxplain.attribution.methods.base import CoalitionMethod
from voxplain.engine.context import Context
from voxplain.engine.masks.coalition_designs import Bernoulli
from voxplain.engine.masks.quasi_random_designs import QuasiLevels
from voxplain.engine.masks.reducers.piecewise import PiecewiseLinear
from voxplain.engine.masks.reducers.surrogates import LocalSurrogate
from voxplain.engine.method import register
from voxplain.engine.requests import MaskRequest
from voxplain.errors import ConfigError
from voxplain.regions import RegionSpec, Supervoxels

_PENALTY = {"ridge": 1.0, "lasso": 0.01, "tree": 0.0}
_DEPTH = 4


@register
class Lime(CoalitionMethod):
    """The weight of each region in a linear model of the score, fitted around the image.

    With ``surrogate: tree`` the model is a regression tree, and the map says how much each region
    raises its mean on the way to the leaf of the image; the sidecar holds the tree.

    The defaults are those of the lime package; ``distance: image``, ``surrogate: lasso``,
    ``width: 1`` are Captum's.
    """

    formula = "argmin_b sum_z exp(-d(z)^2 / (2 width^2)) (S(x_z) - b0 - <b, z>)^2 + penalty"
    reference = "Ribeiro et al., 2016"
    name: Literal["lime"] = "lime"
    regions: RegionSpec = Supervoxels()
    samples: int | None = Field(
        default=None, ge=2, description="coalitions; absent: 8 per region, 512 at least"
    )
    distance: Literal["coalition", "image"] = Field(
        default="coalition",
        description="1 - cosine, between coalitions or images",
    )
    width: float = Field(default=0.25, gt=0, description="of the kernel, in distance")
    surrogate: Literal["ridge", "lasso", "tree"] = Field(
        default="ridge", description="the model: linear with a penalty, or a regression tree"
    )
    penalty: float | None = Field(
        default=None, ge=0, description="on the weights; absent: 1 for ridge, 0.01 for lasso"
    )
    depth: int | None = Field(default=None, ge=1, description="of the tree; absent: 4")

    @model_validator(mode="after")
    def _parameters_of_the_surrogate(self) -> Self:
        if self.surrogate == "tree" and self.penalty is not None:
            raise ValueError("penalty is for ridge and lasso; a tree takes depth")
        if self.surrogate != "tree" and self.depth is not None:
            raise ValueError(f"depth is for surrogate: tree; {self.surrogate} takes penalty")
        return self

    def requests(self, context: Context) -> tuple[MaskRequest, ...]:
        """Coalitions that keep each region with probability 1/2.

        Raises:
            ConfigError: If images are compared under a fill that depends on the coalition.
        """
        if self.distance == "image" and self.fill.kind == "noise":
            raise ConfigError(
                "lime.distance: 'image' compares images whose removed parts are known beforehand, "
                "and the fill 'noise' depends on what is left; take another fill, or "
                "distance: 'coalition'"
            )
        penalty = _PENALTY[self.surrogate] if self.penalty is None else self.penalty
        depth = _DEPTH if self.depth is None else self.depth
        fit = LocalSurrogate(self.distance, self.width, self.surrogate, penalty, depth)
        return (MaskRequest(Bernoulli(self.regions, self.samples), self.fill, fit),)


@register
class PiecewiseLinearSurrogate(CoalitionMethod):
    """The effect of bringing back each region, in a piecewise linear model of the score.

    The score of images whose regions fade independently is fitted by a curve per region, linear
    between levels, and by a small network for interactions of regions. A quarter of the images is
    held out; the sidecar states the fit on them with and without the network, and of each listed
    region its curve: f_i at the levels of fading, from removed (0) to whole.
    """

    formula = "S(x_z) ~ c + sum_i f_i(z_i) + perceptron(z); the map is f_i(1) - f_i(0)"
    reference = "TorchEsegeta, Chatterjee et al., 2021 (linear approximation)"
    name: Literal["piecewise_linear_surrogate"] = "piecewise_linear_surrogate"
    regions: RegionSpec = Supervoxels()
    samples: int | None = Field(
        default=None, ge=8, description="images; absent: 12 per region, 512 at least"
    )
    levels: int = Field(default=4, ge=2, description="of fading per region, both ends included")
    penalty: float = Field(default=1.0, ge=0, description="of the ridge on the pieces")

    def requests(self, context: Context) -> tuple[MaskRequest, ...]:
        """Regions faded to levels, in a low-discrepancy design."""
        masks = QuasiLevels(self.regions, self.samples, self.levels)
        fit = PiecewiseLinear(self.levels, self.penalty)
        return (MaskRequest(masks, self.fill, fit),)
