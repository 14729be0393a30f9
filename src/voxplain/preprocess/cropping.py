"""Steps that cut the image or pad it; no voxel moves and none changes its value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor

from voxplain.errors import ConfigError, InputError
from voxplain.extents import Extent, resolve
from voxplain.image import Image
from voxplain.preprocess.inverses import WindowInverse, windowed
from voxplain.preprocess.step import Step, millimeters, moved, per_axis

PadValue = float | Literal["minimum"]


class CropForeground(Step):
    """Crops to the bounding box of everything above a threshold, in any channel.

    Attributes:
        threshold: In the units of the image at this point of the preprocessing.
        margin: Kept around the box, as far as the image reaches.
    """

    kind: Literal["crop_foreground"] = "crop_foreground"
    threshold: float = 0.0
    margin: Extent = 0

    def apply(self, image: Image) -> Image:
        """The cropped image.

        Raises:
            InputError: If nothing lies above the threshold.
        """
        foreground = (image.data > self.threshold).any(dim=0)
        if not foreground.any():
            raise InputError(
                f"crop_foreground: no voxel is above {self.threshold:g}; the image reaches from "
                f"{image.data.min():g} to {image.data.max():g}"
            )
        margin = resolve(self.margin, image.grid.shape, millimeters(image.grid))
        start, end = [], []
        for axis, extra in enumerate(margin):
            others = [other for other in range(image.rank) if other != axis]
            found = torch.nonzero(foreground.amax(dim=others))
            start.append(max(int(found[0]) - extra, 0))
            end.append(min(int(found[-1]) + 1 + extra, image.grid.shape[axis]))
        return _cut(image, self.kind, start, [b - a for a, b in zip(start, end, strict=True)])


class Crop(Step):
    """Cuts a box out of the image.

    Attributes:
        start: First voxel per axis.
        shape: Voxels per axis. Both also as fractions of the axis or as lengths (``"64mm"``).
    """

    kind: Literal["crop"] = "crop"
    start: Extent
    shape: Extent

    def apply(self, image: Image) -> Image:
        """The box.

        Raises:
            ConfigError: If the box reaches out of the image.
        """
        size = image.grid.shape
        start = resolve(self.start, size, millimeters(image.grid))
        shape = resolve(self.shape, size, millimeters(image.grid))
        axes = zip(start, shape, size, strict=True)
        if any(first + extent > have or extent < 1 for first, extent, have in axes):
            raise ConfigError(
                f"crop: a box of {list(shape)} from {list(start)} does not fit into an image of "
                f"{list(size)}; center_crop_pad pads where the image is too small"
            )
        return _cut(image, self.kind, start, shape)


class CenterCropPad(Step):
    """Brings the image to a shape around its center, cropping and padding as each axis needs.

    Attributes:
        shape: Voxels per axis, also as fractions of the axis or as lengths.
        value: What padding holds: a number, or the minimum of each channel.
    """

    kind: Literal["center_crop_pad"] = "center_crop_pad"
    shape: Extent
    value: PadValue = 0.0

    def apply(self, image: Image) -> Image:
        """The image in that shape."""
        shape = resolve(self.shape, image.grid.shape, millimeters(image.grid))
        if min(shape) < 1:
            raise ConfigError(f"center_crop_pad.shape: {list(shape)} leaves no voxel on one axis")
        start = [_centered(have, size) for have, size in zip(image.grid.shape, shape, strict=True)]
        return _cut(image, self.kind, start, shape, self.value)


class PadToMultiple(Step):
    """Pads both ends of each axis up to the next multiple, as networks with strides need.

    Attributes:
        multiple: For all axes or one per axis.
        value: What padding holds: a number, or the minimum of each channel.
    """

    kind: Literal["pad_to_multiple"] = "pad_to_multiple"
    multiple: PositiveInt | tuple[PositiveInt, ...]
    value: PadValue = 0.0

    def apply(self, image: Image) -> Image:
        """The padded image."""
        multiples = per_axis(self.multiple, image.rank, "pad_to_multiple.multiple")
        shape = [-(-n // m) * m for n, m in zip(image.grid.shape, multiples, strict=True)]
        start = [_centered(have, size) for have, size in zip(image.grid.shape, shape, strict=True)]
        return _cut(image, self.kind, start, shape, self.value)


def _cut(
    image: Image, kind: str, start: Sequence[int], shape: Sequence[int], value: PadValue = 0.0
) -> Image:
    if tuple(shape) == image.grid.shape and not any(start):
        return image
    fill = _minimum(image.data) if value == "minimum" else value
    data = windowed(image.data, start, shape, fill)
    inverse = WindowInverse(kind, image.grid, tuple(start), tuple(shape))
    return moved(image, data, image.grid.sub(start, (1,) * image.rank, shape), inverse)


def _centered(have: int, size: int) -> int:
    """Where a window begins; what cannot be halved is cut or padded at the end."""
    return (have - size) // 2 if have >= size else -((size - have) // 2)


def _minimum(data: Tensor) -> Tensor:
    return data.amin(dim=tuple(range(1, data.ndim)), keepdim=True)
