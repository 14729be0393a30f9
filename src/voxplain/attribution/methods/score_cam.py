"""Score-CAM and Ablation-CAM: channels of a layer weighted by scores instead of gradients."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from voxplain.attribution.methods.mask_method import MaskMethod
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
from voxplain.engine.method import Resampling, register
from voxplain.engine.requests import MaskRequest
from voxplain.engine.stream_io import StreamResults
from voxplain.engine.taps import INPUT, Tap


class _MaskCam(MaskMethod):
    """A map sum_k w_k A_k of one layer, weighted by scores; no gradient is needed.

    Attributes:
        layer: Path of the layer; the last feature layer if None.
        relu: Keep only what speaks for the target.
        max_channels: Into how many groups of channels that light up together a layer is gathered.
    """

    family: ClassVar[str] = "cam"
    resampling: ClassVar[Resampling] = "value"
    units: ClassVar[str] = "weighted activation"

    layer: str | None = Field(default=None, description="path; absent: the last feature layer")
    side: Literal["output", "input"] = "output"
    relu: bool = True
    max_channels: int | None = Field(
        default=None, ge=1, description="gather alike channels into so many; absent: one by one"
    )

    def maps(self, results: StreamResults, context: Context) -> dict[str | None, Tensor]:
        """The weighted sum, rectified at the cells of the layer, on the image grid."""
        cam = results[0][INPUT]
        shown = functional.relu(cam) if self.relu else cam
        return {None: context.on_image(self._tap(context), shown.to(results.item.image))}

    def _tap(self, context: Context) -> Tap:
        (tap,) = context.taps((self.layer,) if self.layer else (), self.side)
        return tap

    @property
    def sign(self) -> Literal["signed", "absolute", "positive"]:
        """Positive after the rectifier."""
        return "positive" if self.relu else super().sign


@register
class ScoreCam(_MaskCam):
    """Where a layer holds evidence: channels weighted by the score of what they show."""

    formula = "ReLU(sum_k w_k A_k), w_k from S(x * up(A_k)), A_k scaled to [0, 1]"
    reference = "Wang et al., 2020"
    name: Literal["score_cam"] = "score_cam"
    weighting: Weighting = Field(
        default="increase",
        description="increase: max(0, S_k - S(nothing)) over its sum; softmax: of the scores",
    )
    fill: AnyFill = Constant()

    def requests(self, context: Context) -> tuple[MaskRequest, ...]:
        """One forward per channel, and one of nothing."""
        masks = ChannelsAsMasks(self._tap(context), self.max_channels)
        return (MaskRequest(masks, self.fill, ScoreWeights(self.weighting)),)


@register
class AblationCam(_MaskCam):
    """Where a layer holds evidence: channels weighted by what the score loses without them."""

    formula = "ReLU(sum_k w_k A_k), w_k = (S - S_k) / |S|, channel k replaced"
    reference = "Desai and Ramaswamy, 2020"
    name: Literal["ablation_cam"] = "ablation_cam"
    level: Level = Field(default=0.0, description="what a channel becomes: a number, or its mean")

    def requests(self, context: Context) -> tuple[MaskRequest, ...]:
        """One forward per channel."""
        masks = ChannelsOff(self._tap(context), self.max_channels, self.level)
        return (MaskRequest(masks, Constant(), AblationWeights()),)
