"""Images from noise that drive a unit: with a natural spectrum, with plain voxels, of a layer."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from voxplain.synthesis.methods.base import FromNoise, registered
from voxplain.synthesis.parametrizations import AnyParametrization, Pixels
from voxplain.synthesis.regularization import Regularization
from voxplain.synthesis.transforms import Transforms


@registered
class FeatureVisualization(FromNoise):
    """An image that drives a unit, with the range, spectrum and modalities of the user's images."""

    formula = "argmax E_t f(t(x)), x = range(C irFFT(s z))"
    reference = "Olah et al., 2017"
    name: Literal["feature_visualization"] = "feature_visualization"
    regularization: Regularization = Regularization(total_variation=1.25)


@registered
class ActivationMaximization(FromNoise):
    """An image of free voxels that drives a unit, with penalties; without them it is noise.

    The penalties of ``regularization`` are 0 for the form without regularization. No transforms
    are applied.
    """

    formula = "argmax f(x) - R(x) - lambda ||x||^2"
    reference = "Erhan et al., 2009; Simonyan et al., 2014"
    name: Literal["activation_maximization"] = "activation_maximization"
    parametrization: AnyParametrization = Pixels()
    transforms: Transforms = Transforms.none()
    regularization: Regularization = Regularization(l2=1.0, total_variation=25.0)
    extent: Literal["auto", "image", "receptive_field"] | tuple[int, ...] = "image"


@registered
class LayerVisualization(FromNoise):
    """An image from noise that drives a whole layer, without transforms, as in TorchEsegeta.

    A unit ``layer`` is the mean square of all its activations, ``layer:channel`` one channel.
    """

    formula = "argmax mean A(x)^2 from a random image"
    reference = "Chatterjee et al., 2021"
    name: Literal["layer_visualization"] = "layer_visualization"
    steps: int = Field(default=256, ge=1)
    parametrization: AnyParametrization = Pixels()
    transforms: Transforms = Transforms.none()
    regularization: Regularization = Regularization(total_variation=0.25)
