"""Score-CAM and Ablation-CAM: channels of a layer weighted by scores instead of gradients."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from voxplain.attribution.methods.base import MaskMethod
from voxplain.attribution.methods.cam import CamMethod
from voxplain.engine.context import Context
from voxplain.engine.masks import (
    AblationWeights,
    AnyFill,
    ChannelsAsMasks,
    ChannelsOff,
    Constant,
    Level,
    ScoreWeights,
    Weighting,
)
from voxplain.engine.method import register
from voxplain.engine.requests import MaskRequest
from voxplain.engine.stream_io import StreamResults
from voxplain.engine.taps import INPUT


class _MaskCam(CamMethod, MaskMethod):
    """A map sum_k w_k A_k of one layer, weighted by scores; no gradient is needed.

    Attributes:
        max_channels: Into how many groups of similar channels a layer is gathered.
    """

    max_channels: int | None = Field(
        default=None, ge=1, description="groups of similar channels; absent: every channel alone"
    )

    def maps(self, results: StreamResults, context: Context) -> dict[str | None, Tensor]:
        """The weighted sum, rectified at the cells of the layer, on the image grid."""
        cam = results[0][INPUT]
        rectified = functional.relu(cam) if self.relu else cam
        tap = self.tap(context, self.side)
        return {None: context.layers.on_image(tap, rectified.to(results.item.image))}


@register
class ScoreCam(_MaskCam):
    """Where a layer holds evidence: channels weighted by the score of the image under them."""

    formula = "ReLU(sum_k w_k A_k), w_k from S(x * up(A_k)), A_k scaled to [0, 1]"
    reference = "Wang et al., 2020"
    name: Literal["score_cam"] = "score_cam"
    weighting: Weighting = Field(
        default="increase",
        description="increase: max(0, S_k - S(nothing)) over its sum; softmax: of the scores",
    )
    fill: AnyFill = Constant()

    def requests(self, context: Context) -> tuple[MaskRequest, ...]:
        """One forward per channel, and one with nothing left of the image."""
        masks = ChannelsAsMasks(self.tap(context, self.side), self.max_channels)
        return (MaskRequest(masks, self.fill, ScoreWeights(self.weighting)),)


@register
class AblationCam(_MaskCam):
    """Where a layer holds evidence: channels weighted by the drop of the score without them."""

    formula = "ReLU(sum_k w_k A_k), w_k = (S - S_k) / |S|, channel k replaced"
    reference = "Desai and Ramaswamy, 2020"
    name: Literal["ablation_cam"] = "ablation_cam"
    level: Level = Field(default=0.0, description="of a replaced channel: a number, or its mean")

    def requests(self, context: Context) -> tuple[MaskRequest, ...]:
        """One forward per channel."""
        masks = ChannelsOff(self.tap(context, self.side), self.max_channels, self.level)
        return (MaskRequest(masks, Constant(), AblationWeights()),)
