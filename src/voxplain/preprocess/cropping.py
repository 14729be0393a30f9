"""Steps that crop or pad the image; voxels keep their place and their value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor

from voxplain.errors import ConfigError, InputError
from voxplain.extents import Extent, require_bounded, resolve
from voxplain.image import Image
from voxplain.preprocess.inverses import WindowInverse, windowed
from voxplain.preprocess.step import Step, moved, per_axis

PadValue = float | Literal["minimum"]


class CropForeground(Step):
    """Crops to the bounding box of the voxels above a threshold in any channel.

    Attributes:
        threshold: In the intensity units that the image has before this step; ``nonzero`` for all
            voxels that are not 0, also below.
        margin: Added around the box, within the image.
    """

    kind: Literal["crop_foreground"] = "crop_foreground"
    threshold: float | Literal["nonzero"] = 0.0
    margin: Extent = 0

    def apply(self, image: Image) -> Image:
        """The cropped image.

        Raises:
            InputError: If nothing lies above the threshold.
        """
        data, least = image.data, self.threshold
        foreground = (data != 0 if least == "nonzero" else data > least).any(dim=0)
        if not foreground.any():
            what = "other than 0" if least == "nonzero" else f"above {least:g}"
            raise InputError(
                f"crop_foreground: no voxel is {what}; the image reaches from "
                f"{image.data.min():g} to {image.data.max():g}"
            )
        margin = resolve(self.margin, image.grid.shape, image.grid.spacing_mm)
        start, end = [], []
        for axis, extra in enumerate(margin):
            others = [other for other in range(image.rank) if other != axis]
            inside = torch.nonzero(foreground.amax(dim=others))
            start.append(max(int(inside[0]) - extra, 0))
            end.append(min(int(inside[-1]) + 1 + extra, image.grid.shape[axis]))
        return _cut(image, self.kind, start, [b - a for a, b in zip(start, end, strict=True)])


class Crop(Step):
    """Crops to a box.

    Attributes:
        start: First voxel per axis, also as a fraction of the axis or as a length (``"64mm"``).
        shape: Voxels per axis, also as a fraction of the axis or as a length.
    """

    kind: Literal["crop"] = "crop"
    start: Extent
    shape: Extent

    def apply(self, image: Image) -> Image:
        """The box as an image.

        Raises:
            ConfigError: If the box reaches beyond the image.
        """
        grid = image.grid
        start = resolve(self.start, grid.shape, grid.spacing_mm)
        shape = resolve(self.shape, grid.shape, grid.spacing_mm)
        axes = zip(start, shape, grid.shape, strict=True)
        if any(first + size > length or size < 1 for first, size, length in axes):
            raise ConfigError(
                f"crop: a box of {list(shape)} from {list(start)} does not fit into an image of "
                f"{list(grid.shape)}; center_crop_pad pads where the image is too small"
            )
        return _cut(image, self.kind, start, shape)


class CenterCropPad(Step):
    """Crops or pads each axis to a shape, around the center of the image.

    Attributes:
        shape: Voxels per axis, also as a fraction of the axis or as a length.
        value: Value of the padding: a number, or the minimum of each channel.
    """

    kind: Literal["center_crop_pad"] = "center_crop_pad"
    shape: Extent
    value: PadValue = 0.0

    def apply(self, image: Image) -> Image:
        """The image in that shape.

        Raises:
            ConfigError: If the shape leaves no voxel along an axis.
        """
        shape = resolve(self.shape, image.grid.shape, image.grid.spacing_mm)
        if min(shape) < 1:
            raise ConfigError(f"center_crop_pad.shape: {list(shape)} leaves no voxel on one axis")
        return _cut(image, self.kind, _centered(image.grid.shape, shape), shape, self.value)


class PadToMultiple(Step):
    """Pads both ends of each axis to the next multiple, as networks with strides need it.

    Attributes:
        multiple: In voxels, for all axes or one per axis.
        value: Value of the padding: a number, or the minimum of each channel.
    """

    kind: Literal["pad_to_multiple"] = "pad_to_multiple"
    multiple: PositiveInt | tuple[PositiveInt, ...]
    value: PadValue = 0.0

    def apply(self, image: Image) -> Image:
        """The padded image."""
        multiples = per_axis(self.multiple, image.rank, "pad_to_multiple.multiple")
        shape = [-(-n // m) * m for n, m in zip(image.grid.shape, multiples, strict=True)]
        return _cut(image, self.kind, _centered(image.grid.shape, shape), shape, self.value)


def _cut(
    image: Image, kind: str, start: Sequence[int], shape: Sequence[int], value: PadValue = 0.0
) -> Image:
    if tuple(shape) == image.grid.shape and not any(start):
        return image
    require_bounded(shape, kind)
    fill = _minimum(image.data) if value == "minimum" else value
    data = windowed(image.data, start, shape, fill)
    inverse = WindowInverse(kind, image.grid, tuple(start), tuple(shape))
    return moved(image, data, image.grid.sub(start, (1,) * image.rank, shape), inverse)


def _centered(shape: Sequence[int], window: Sequence[int]) -> list[int]:
    """First voxel of a centered window, per axis; an odd voxel is cut or padded at the end."""
    axes = zip(shape, window, strict=True)
    return [
        (length - size) // 2 if length >= size else -((size - length) // 2) for length, size in axes
    ]


def _minimum(data: Tensor) -> Tensor:
    return data.amin(dim=tuple(range(1, data.ndim)), keepdim=True)
