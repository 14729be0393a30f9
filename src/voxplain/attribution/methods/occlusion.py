"""Occlusion: the score while a box hides each place of the image."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from voxplain.attribution.methods.base import MaskMethod
from voxplain.engine.context import Context
from voxplain.engine.masks import AnyFill, Blur, Drop, SlidingBox
from voxplain.engine.method import register
from voxplain.engine.requests import Choice, MaskRequest
from voxplain.extents import PositiveExtent


@register
class Occlusion(MaskMethod):
    """The drop of the score when a box around each voxel is hidden."""

    formula = "mean over the boxes around v of S(x) - S(x with the box filled)"
    reference = "Zeiler and Fergus, 2014"
    name: Literal["occlusion"] = "occlusion"
    window: PositiveExtent = Field(
        default=1 / 6, description="of a box: voxels, fraction of an axis, mm"
    )
    stride: PositiveExtent | None = Field(
        default=None, description="from box to box; absent: half a box"
    )
    fill: AnyFill = Blur()
    incremental: Choice = Field(
        default="auto", description="compute only what a box changes, where that is less work"
    )

    def requests(self, context: Context) -> tuple[MaskRequest, ...]:
        boxes = SlidingBox(self.window, self.stride)
        return (MaskRequest(boxes, self.fill, Drop(), incremental=self.incremental),)
