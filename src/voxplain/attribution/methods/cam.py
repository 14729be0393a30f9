"""The CAM family: activations of a layer weighted by their gradients, on the image grid."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from voxplain.attribution.methods.cam_reducers import (
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
from voxplain.attribution.methods.layer_method import LayerMethod
from voxplain.engine.context import Context
from voxplain.engine.gradients.reducers import MeanGradient
from voxplain.engine.gradients.samplers import Original
from voxplain.engine.method import Method, Resampling, register
from voxplain.engine.network_layers import Assembly, Interpolation
from voxplain.engine.requests import GradientRequest
from voxplain.engine.rules import Guided, Plain
from voxplain.engine.stream_io import StreamResults
from voxplain.engine.taps import INPUT, Tap


class Cam(Method):
    """A map sum_k omega_kv A_kv of one layer, brought to the image grid.

    Attributes:
        layer: Path of the layer; the last feature layer if None.
        relu: Keep only what speaks for the target.
    """

    family: ClassVar[str] = "cam"
    resampling: ClassVar[Resampling] = "value"
    units: ClassVar[str] = "weighted activation"
    weights: ClassVar[Any]

    layer: str | None = Field(default=None, description="path; absent: the last feature layer")
    side: Literal["output", "input"] = "output"
    relu: bool = True

    def requests(self, context: Context) -> tuple[GradientRequest, ...]:
        """The single pass that all CAMs share."""
        taps = context.taps((self.layer,) if self.layer else (), self.side)
        return (GradientRequest(Original(), self.weights, Plain(), taps),)

    def maps(self, results: StreamResults, context: Context) -> dict[str | None, Tensor]:
        """The weighted sum, rectified, on the image grid."""
        ((tap, cam),) = results[0].items()
        if not self.relu:
            return {None: context.on_image(tap, cam, self.weights.windows)}
        return {None: _rectified_on_image(context, tap, cam, self.weights.windows)}

    @property
    def sign(self) -> Literal["signed", "absolute", "positive"]:
        """Positive after the rectifier."""
        return "positive" if self.relu else super().sign


@register
class GradCam(Cam):
    """Where a layer holds evidence: channels weighted by their mean gradient."""

    formula = "ReLU(sum_k mean_v(G_k) A_k)"
    reference = "Selvaraju et al., 2017"
    weights = ChannelMean
    name: Literal["grad_cam"] = "grad_cam"


@register
class SegGradCam(Cam):
    """Grad-CAM of a region of a segmentation; the region is the target."""

    formula = "ReLU(sum_k mean_v(G_k) A_k), S summed over a region"
    reference = "Vinogradova et al., 2020"
    weights = ChannelMean
    name: Literal["seg_grad_cam"] = "seg_grad_cam"


@register
class GradCamPlusPlus(Cam):
    """Grad-CAM with positions weighted so that several small objects count."""

    formula = "ReLU(sum_k w_k A_k), w_k = sum_v ReLU(G) G^2 / (2 G^2 + (sum_v A) G^3)"
    reference = "Chattopadhay et al., 2018"
    weights = PlusPlus
    name: Literal["grad_cam_plus_plus"] = "grad_cam_plus_plus"


@register
class XGradCam(Cam):
    """Grad-CAM with gradients averaged by activation."""

    formula = "ReLU(sum_k (sum_v G_k A_k / sum_v A_k) A_k)"
    reference = "Fu et al., 2020"
    weights = XGrad
    name: Literal["x_grad_cam"] = "x_grad_cam"


@register
class LayerCam(Cam):
    """Activations weighted by their own positive gradients: detail at shallow layers."""

    formula = "ReLU(sum_k ReLU(G_k) A_k)"
    reference = "Jiang et al., 2021"
    weights = LayerCamWeights
    name: Literal["layer_cam"] = "layer_cam"


@register
class HiResCam(Cam):
    """Activations weighted by their own gradients, without averaging."""

    formula = "ReLU(sum_k G_k A_k)"
    reference = "Draelos and Carin, 2020"
    weights = Elementwise
    name: Literal["hires_cam"] = "hires_cam"


@register
class ElementwiseGradCam(Cam):
    """Every positive product of activation and gradient, summed over channels."""

    formula = "sum_k ReLU(G_k A_k)"
    reference = "Gildenblat, pytorch-grad-cam"
    weights = ElementwiseRectified
    name: Literal["elementwise_grad_cam"] = "elementwise_grad_cam"


@register
class EigenCam(Cam):
    """The main pattern of a layer, whatever the class."""

    formula = "first principal component of A, oriented by sum_k G A"
    reference = "Muhammad and Yeasin, 2020"
    weights = FirstComponent
    name: Literal["eigen_cam"] = "eigen_cam"


@register
class EigenGradCam(Cam):
    """The main pattern of what a layer contributes."""

    formula = "first principal component of G A, oriented by sum_k G A"
    reference = "Gildenblat, pytorch-grad-cam"
    weights = PositionProduct
    name: Literal["eigen_grad_cam"] = "eigen_grad_cam"


@register
class LayerGradCam(LayerMethod):
    """Grad-CAM at the resolution of the layer, signed."""

    formula = "sum_k mean_v(G_k) A_k"
    reference = "Selvaraju et al., 2017"
    resampling: ClassVar[Resampling] = "value"
    units = "weighted activation"
    name: Literal["layer_grad_cam"] = "layer_grad_cam"
    windows: ClassVar[Assembly] = "blend"
    relu: bool = False
    sum_channels: bool = True

    def requests(self, context: Context) -> tuple[GradientRequest, ...]:
        """The single pass that all CAMs share."""
        reducer = ChannelMean if self.sum_channels else ChannelMean.unsummed
        return (GradientRequest(Original(), reducer, Plain(), self._taps(context)),)

    def maps(self, results: StreamResults, context: Context) -> dict[str | None, Tensor]:
        """One map per layer."""
        found = super().maps(results, context)
        return {layer: functional.relu(map) if self.relu else map for layer, map in found.items()}


@register
class GuidedGradCam(Method):
    """Guided backpropagation where Grad-CAM sees evidence."""

    family = "cam"
    exact_in_windows = False
    formula = "guided_backprop * up(ReLU(grad_cam))"
    reference = "Selvaraju et al., 2017"
    name: Literal["guided_grad_cam"] = "guided_grad_cam"
    layer: str | None = Field(default=None, description="path; absent: the last feature layer")
    interpolation: Literal["linear", "nearest"] = "linear"
    functions: Functions = "rectifiers"

    def requests(self, context: Context) -> tuple[GradientRequest, ...]:
        """Two rules on one image; both passes are shared with the parents."""
        taps = context.taps((self.layer,) if self.layer else ())
        guided = Guided(functions=self.functions)
        return (
            GradientRequest(Original(), MeanGradient, guided),
            GradientRequest(Original(), ChannelMean, Plain(), taps),
        )

    def maps(self, results: StreamResults, context: Context) -> dict[str | None, Tensor]:
        """Their product on the image grid."""
        ((tap, cam),) = results[1].items()
        weight = _rectified_on_image(context, tap, cam, "blend", self.interpolation)
        return {None: results[0][INPUT] * weight}


def _rectified_on_image(
    context: Context,
    tap: Tap,
    cam: Tensor,
    windows: Assembly,
    interpolation: Interpolation = "linear",
) -> Tensor:
    """Rectified at the layer's cells; shares of windows that add up, once they have."""
    if context.layout is None or windows == "blend":
        return context.on_image(tap, functional.relu(cam), windows, interpolation)
    return functional.relu(context.on_image(tap, cam, windows, interpolation))
