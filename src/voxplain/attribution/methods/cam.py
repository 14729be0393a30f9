"""Class activation maps: activations of a layer weighted by their gradients, on the image grid."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

from torch import Tensor
from torch.nn import functional

from voxplain.attribution.methods.base import AtLayers, FromLayer
from voxplain.attribution.methods.cam_reducers import (
    CamReducer,
    ChannelMean,
    Elementwise,
    ElementwiseRectified,
    FirstComponent,
    LayerCamWeights,
    PlusPlus,
    PositionProduct,
    XGrad,
)
from voxplain.attribution.methods.guided_backprop import Functions
from voxplain.engine.context import Context
from voxplain.engine.gradients.reducers import MeanGradient
from voxplain.engine.gradients.samplers import Original
from voxplain.engine.method import MapProperties, Resampling, register
from voxplain.engine.network_layers import Assembly, Interpolation
from voxplain.engine.requests import GradientRequest
from voxplain.engine.rules import Guided, Plain
from voxplain.engine.stream_io import StreamResults
from voxplain.engine.taps import INPUT, Side, Tap


class CamMethod(FromLayer):
    """A weighted sum of the channels of one layer, on the image grid.

    Attributes:
        side: The output or the input of the layer.
        relu: Keep positive evidence only.
    """

    family = "cam"
    resampling: ClassVar[Resampling] = "value"
    units = "weighted activation"

    side: Side = "output"
    relu: bool = True

    def properties(self) -> MapProperties:
        """Positive after the rectifier."""
        declared = super().properties()
        return replace(declared, sign="positive") if self.relu else declared


class _GradientCam(CamMethod):
    """A map sum_k omega_kv A_kv, with weights from the gradients of the layer.

    Attributes:
        weights: Makes omega_kv A_kv of activations and gradients.
    """

    weights: ClassVar[type[CamReducer]]

    def requests(self, context: Context) -> tuple[GradientRequest, ...]:
        """The single pass that all CAMs share."""
        tap = self.tap(context, self.side)
        return (GradientRequest(Original(), self.weights, Plain(), (tap,)),)

    def maps(self, results: StreamResults, context: Context) -> dict[str | None, Tensor]:
        """The weighted sum, rectified, on the image grid."""
        ((tap, cam),) = results[0].items()
        if not self.relu:
            return {None: context.layers.on_image(tap, cam, self.weights.windows)}
        return {None: _rectified_on_image(context, tap, cam, self.weights.windows)}

    def properties(self) -> MapProperties:
        """Windows are assembled as the weights need it."""
        return replace(
            super().properties(),
            exact_in_windows=self.weights.exact_in_windows,
            window_assembly=self.weights.windows,
        )


@register
class GradCam(_GradientCam):
    """Where a layer holds evidence for the target: channels weighted by their mean gradient."""

    formula = "ReLU(sum_k mean_v(G_k) A_k)"
    reference = "Selvaraju et al., 2017"
    weights = ChannelMean
    name: Literal["grad_cam"] = "grad_cam"


@register
class SegGradCam(_GradientCam):
    """Grad-CAM of a region of a segmentation; the region is the target."""

    formula = "ReLU(sum_k mean_v(G_k) A_k), S summed over a region"
    reference = "Vinogradova et al., 2020"
    weights = ChannelMean
    name: Literal["seg_grad_cam"] = "seg_grad_cam"


@register
class LayerGradCam(AtLayers):
    """Grad-CAM on the grid of the layer, signed."""

    formula = "sum_k mean_v(G_k) A_k"
    reference = "Selvaraju et al., 2017"
    resampling = "value"
    units = "weighted activation"
    window_assembly = "blend"
    name: Literal["layer_grad_cam"] = "layer_grad_cam"
    relu: bool = False
    sum_channels: bool = True

    def requests(self, context: Context) -> tuple[GradientRequest, ...]:
        """The single pass that all CAMs share."""
        reducer = ChannelMean if self.sum_channels else ChannelMean.unsummed
        return (GradientRequest(Original(), reducer, Plain(), self.taps(context)),)

    def maps(self, results: StreamResults, context: Context) -> dict[str | None, Tensor]:
        """One map per layer, rectified if ``relu`` is set."""
        maps = super().maps(results, context)
        return {layer: functional.relu(cam) for layer, cam in maps.items()} if self.relu else maps


@register
class GuidedGradCam(FromLayer):
    """Guided backpropagation, weighted by Grad-CAM."""

    family = "cam"
    exact_in_windows = False
    formula = "guided_backprop * up(ReLU(grad_cam))"
    reference = "Selvaraju et al., 2017"
    name: Literal["guided_grad_cam"] = "guided_grad_cam"
    interpolation: Interpolation = "linear"
    functions: Functions = "rectifiers"

    def requests(self, context: Context) -> tuple[GradientRequest, ...]:
        """The passes of ``guided_backprop`` and of ``grad_cam``."""
        return (
            GradientRequest(Original(), MeanGradient, Guided(functions=self.functions)),
            GradientRequest(Original(), ChannelMean, Plain(), (self.tap(context),)),
        )

    def maps(self, results: StreamResults, context: Context) -> dict[str | None, Tensor]:
        """The product of both maps on the image grid."""
        gradient, layers = results
        ((tap, cam),) = layers.items()
        weight = _rectified_on_image(context, tap, cam, "blend", self.interpolation)
        return {None: gradient[INPUT] * weight}


@register
class GradCamPlusPlus(_GradientCam):
    """Grad-CAM with weights per position, so that each of several small objects counts."""

    formula = "ReLU(sum_k w_k A_k), w_k = sum_v ReLU(G) G^2 / (2 G^2 + (sum_v A) G^3)"
    reference = "Chattopadhay et al., 2018"
    weights = PlusPlus
    name: Literal["grad_cam_plus_plus"] = "grad_cam_plus_plus"


@register
class XGradCam(_GradientCam):
    """Grad-CAM with the mean gradient of a channel weighted by its activations."""

    formula = "ReLU(sum_k (sum_v G_k A_k / sum_v A_k) A_k)"
    reference = "Fu et al., 2020"
    weights = XGrad
    name: Literal["x_grad_cam"] = "x_grad_cam"


@register
class LayerCam(_GradientCam):
    """Activations weighted by their own positive gradients, for detail at shallow layers."""

    formula = "ReLU(sum_k ReLU(G_k) A_k)"
    reference = "Jiang et al., 2021"
    weights = LayerCamWeights
    name: Literal["layer_cam"] = "layer_cam"


@register
class HiResCam(_GradientCam):
    """Activations weighted by their own gradients, without averaging over positions."""

    formula = "ReLU(sum_k G_k A_k)"
    reference = "Draelos and Carin, 2020"
    weights = Elementwise
    name: Literal["hires_cam"] = "hires_cam"


@register
class ElementwiseGradCam(_GradientCam):
    """The sum over channels of the positive products of activation and gradient."""

    formula = "sum_k ReLU(G_k A_k)"
    reference = "Gildenblat, pytorch-grad-cam"
    weights = ElementwiseRectified
    name: Literal["elementwise_grad_cam"] = "elementwise_grad_cam"


@register
class EigenCam(_GradientCam):
    """The first principal component of the activations of a layer, whatever the class."""

    formula = "first principal component of A, oriented by sum_k G A"
    reference = "Muhammad and Yeasin, 2020"
    weights = FirstComponent
    name: Literal["eigen_cam"] = "eigen_cam"


@register
class EigenGradCam(_GradientCam):
    """The first principal component of activation times gradient of a layer."""

    formula = "first principal component of G A, oriented by sum_k G A"
    reference = "Gildenblat, pytorch-grad-cam"
    weights = PositionProduct
    name: Literal["eigen_grad_cam"] = "eigen_grad_cam"


def _rectified_on_image(
    context: Context,
    tap: Tap,
    cam: Tensor,
    windows: Assembly,
    interpolation: Interpolation = "linear",
) -> Tensor:
    """A CAM on the image grid, rectified at the cells of its layer.

    Where windows add up, a single window holds a part of the value, so that their sum is rectified.
    """
    if context.layout is None or windows == "blend":
        return context.layers.on_image(tap, functional.relu(cam), windows, interpolation)
    return functional.relu(context.layers.on_image(tap, cam, windows, interpolation))
