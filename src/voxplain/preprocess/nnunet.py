"""The preprocessing of nnU-Net v2: the order of axes, intensities, and resampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, field_validator, model_validator
from scipy import ndimage
from torch import Tensor

from voxplain.errors import ConfigError, InputError
from voxplain.extents import require_bounded
from voxplain.image import Image, Mode
from voxplain.preprocess.intensity import composed
from voxplain.preprocess.inverses import AxesInverse, ResampleInverse, unchanged
from voxplain.preprocess.resample import along_axes, nearest, value_weights
from voxplain.preprocess.spatial import ordered
from voxplain.preprocess.step import Step, moved

Scheme = Literal["zscore", "ct", "none", "rescale", "rgb"]
Order = Literal[0, 1, 2, 3, 4, 5]

_SMALLEST_SCALE = 1e-8
_ANISOTROPIC = 3
"""Ratio of the largest to the smallest voxel side from which slices are resampled one by one."""


class Transpose(Step):
    """Permutes the axes; no value changes.

    Attributes:
        order: Number of the old axis, for each new axis.
    """

    kind: Literal["transpose"] = "transpose"
    order: tuple[int, ...]

    @field_validator("order")
    @classmethod
    def _each_once(cls, order: tuple[int, ...]) -> tuple[int, ...]:
        if sorted(order) != list(range(len(order))):
            raise ValueError(f"{list(order)} does not name each axis once, such as [2, 1, 0]")
        return order

    def apply(self, image: Image) -> Image:
        """The image in the new order of axes.

        Raises:
            ConfigError: If the image has another number of axes.
        """
        if len(self.order) != image.rank:
            raise ConfigError(
                f"transpose: {list(self.order)} orders {len(self.order)} axes and the image has "
                f"{image.rank}; where a file does not say, rank: {len(self.order)} of the case does"
            )
        kept = (False,) * image.rank
        if self.order == tuple(range(image.rank)):
            return image
        inverse = AxesInverse(self.kind, image.grid, self.order, kept)
        grid = ordered(image.grid, self.order, kept)
        return moved(image, inverse.forward(image.data), grid, inverse)


class ChannelScheme(BaseModel):
    """How nnU-Net normalizes one channel.

    ============  ============================================================================
    scheme        meaning
    ============  ============================================================================
    ``zscore``    minus mean, divided by the standard deviation, of the image
    ``ct``        cut at ``lower`` and ``upper``, minus ``mean``, divided by ``deviation``
    ``none``      unchanged
    ``rescale``   minimum and maximum become 0 and 1
    ``rgb``       divided by 255
    ============  ============================================================================

    Attributes:
        scheme: See the table.
        inside: For ``zscore``, whether it concerns the part that is not 0 in all channels, with
            its holes, alone; the rest keeps its value.
        lower: For ``ct``, the 0.5th percentile of the foreground of all training images.
        upper: The 99.5th.
        mean: Of the same voxels.
        deviation: Standard deviation of the same voxels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scheme: Scheme
    inside: bool = False
    lower: float | None = None
    upper: float | None = None
    mean: float | None = None
    deviation: float | None = None

    @model_validator(mode="after")
    def _ct_is_whole(self) -> ChannelScheme:
        if self.scheme == "ct" and None in (self.lower, self.upper, self.mean, self.deviation):
            raise ValueError("scheme ct needs lower, upper, mean and deviation")
        return self


class NnunetNormalize(Step):
    """Intensities as nnU-Net normalizes them, each channel in its own way.

    Attributes:
        channels: One scheme for each channel of the image.
    """

    kind: Literal["nnunet_normalize"] = "nnunet_normalize"
    channels: tuple[ChannelScheme, ...] = Field(min_length=1)

    def apply(self, image: Image) -> Image:
        """The image with new intensities, in float32.

        Raises:
            InputError: If the image has another number of channels, or is no RGB picture where
                one is expected.
        """
        if len(self.channels) != len(image.data):
            raise InputError(
                f"the network was trained on {len(self.channels)} channels and the image has "
                f"{len(image.data)} ({', '.join(image.channels)})"
            )
        mask = None
        if any(scheme.inside for scheme in self.channels):
            mask = _nonzero_with_holes(image.data)
        data = image.data.to(torch.float32, copy=True)
        pairs = [_normalized(*channel, mask) for channel in zip(data, self.channels, strict=True)]
        return replace(image, data=data, intensity=composed(image, pairs))


def _nonzero_with_holes(data: Tensor) -> Tensor:
    """Where some channel is not 0, with the holes in it, ``(*spatial)``; none in 2-D, as there."""
    nonzero = (data != 0).any(dim=0)
    if nonzero.ndim < 3:
        return nonzero
    filled = ndimage.binary_fill_holes(nonzero.cpu().numpy())
    return torch.from_numpy(filled).to(nonzero.device)


def _normalized(values: Tensor, scheme: ChannelScheme, mask: Tensor | None) -> tuple[float, float]:
    """Changes a channel ``(*spatial)`` in place; returns its shift and scale."""
    if scheme.scheme == "none":
        return 0.0, 1.0
    if scheme.scheme == "rgb":
        _require_bytes(values)
        shift, scale = 0.0, 255.0
    elif scheme.scheme == "rescale":
        shift, scale = float(values.min()), float(values.max() - values.min())
    elif scheme.scheme == "ct":
        assert scheme.mean is not None
        assert scheme.deviation is not None
        values.clamp_(scheme.lower, scheme.upper)
        shift, scale = scheme.mean, scheme.deviation
    else:
        sample = (values if mask is None or not scheme.inside else values[mask]).double()
        shift, scale = float(sample.mean()), float(sample.std(correction=0))
    scale = max(scale, _SMALLEST_SCALE)
    new = (values - shift) / scale
    values.copy_(torch.where(mask, new, values) if mask is not None and scheme.inside else new)
    return shift, scale


def _require_bytes(values: Tensor) -> None:
    if values.min() < 0 or values.max() > 255:
        raise InputError(
            f"the network was trained on RGB pictures of 0 to 255, and this image reaches from "
            f"{values.min():g} to {values.max():g}"
        )


class NnunetResample(Step):
    """Resamples to the voxel size of the training, as nnU-Net does.

    Splines without anti-aliasing, over the whole volume; where its voxels, or the new ones, are
    three times as long along one axis as along another, in each slice across that axis, and along
    it with ``order_z``. Classes are decided after outputs have been brought back, with
    ``output_order`` and ``output_order_z``.

    Attributes:
        size: Millimeters per voxel and axis, in the order of the image; None leaves an axis.
        order: Of the spline, 0 to 5.
        order_z: The same along the axis of long voxels.
        separate: Whether that axis is treated separately; None to decide by the voxel sizes.
        output_order: Of the way back, 0 or 1.
        output_order_z: The same along the axis of long voxels.
        output_separate: As ``separate``, on the way back.
    """

    kind: Literal["nnunet_resample"] = "nnunet_resample"
    size: tuple[PositiveFloat | None, PositiveFloat | None, PositiveFloat | None]
    order: Order = 3
    order_z: Order = 0
    separate: bool | None = None
    output_order: Literal[0, 1] = 1
    output_order_z: Literal[0, 1] = 0
    output_separate: bool | None = None

    def apply(self, image: Image) -> Image:
        """The resampled image; the same object if its number of voxels stays.

        Raises:
            ConfigError: If the image is no volume, or its voxel size is unknown.
        """
        grid = image.grid
        if grid.rank != 3 or grid.unit == "pixel":
            what = "is no volume" if grid.rank != 3 else "has no voxel size in millimeters"
            raise ConfigError(f"nnunet_resample: the image {what}; give its rank, or its spacing")
        # As in the header of a file, which holds float32.
        old = [float(np.float32(side)) for side in grid.spacing]
        new = [own if side is None else side for side, own in zip(self.size, old, strict=True)]
        axes = zip(old, new, grid.shape, strict=True)
        shape = [round(side / wanted * length) for side, wanted, length in axes]
        if min(shape) < 1:
            raise ConfigError(
                f"nnunet_resample: at {new} mm nothing is left of an image of {list(grid.shape)} "
                f"voxels of {[round(side, 4) for side in old]} mm"
            )
        if shape == list(grid.shape):
            return image
        require_bounded(shape, "nnunet_resample.size")
        slices = separate_axis(self.separate, old, new)
        data = image.data.double().cpu().numpy()
        resampled = np.stack([self._channel(channel, shape, slices) for channel in data])
        back = separate_axis(self.output_separate, new, old)
        inverse = NnunetResampleInverse(
            self.kind,
            grid,
            tuple(shape),
            tuple((n / m - 1) / 2 for n, m in zip(grid.shape, shape, strict=True)),
            tuple(n / m for n, m in zip(grid.shape, shape, strict=True)),
            tuple(self._order_back(axis, back) for axis in range(3)),
        )
        moved_data = torch.from_numpy(resampled).to(image.data)
        return moved(
            image, moved_data, grid.sub(inverse.start, inverse.step, tuple(shape)), inverse
        )

    def _order_back(self, axis: int, slices: int | None) -> Literal[0, 1]:
        return self.output_order_z if axis == slices else self.output_order

    def _channel(
        self, values: NDArray[np.float64], shape: Sequence[int], slices: int | None
    ) -> NDArray[np.float64]:
        """One channel in a new shape; ``slices`` is the axis of long voxels."""
        if slices is None:
            return _resized(values, shape, self.order)
        in_plane = [size for axis, size in enumerate(shape) if axis != slices]
        planes = np.moveaxis(values, slices, 0)
        stacked = np.stack([_resized(plane, in_plane, self.order) for plane in planes])
        if len(planes) != shape[slices]:
            step = len(planes) / shape[slices]
            places = step * (np.arange(shape[slices]) + 0.5) - 0.5
            stacked = _along_first(stacked, places, self.order_z)
        return np.moveaxis(stacked, 0, slices)


def _resized(values: NDArray[np.float64], shape: Sequence[int], order: int) -> NDArray[np.float64]:
    """A spline through cell centers with repeated ends, within the range of the values."""
    from skimage.transform import resize

    resized = resize(  # type: ignore[no-untyped-call]
        values, tuple(shape), order, mode="edge", anti_aliasing=False
    )
    return np.asarray(resized, np.float64)


def _along_first(
    values: NDArray[np.float64], places: NDArray[np.floating], order: int
) -> NDArray[np.float64]:
    """Values at places of the first axis, with repeated ends."""
    grid = np.meshgrid(places, *map(np.arange, values.shape[1:]), indexing="ij")
    found: NDArray[np.float64] = ndimage.map_coordinates(values, grid, order=order, mode="nearest")
    return found


def separate_axis(
    forced: bool | None, current: Sequence[float], new: Sequence[float]
) -> int | None:
    """The axis of long voxels that nnU-Net resamples separately; None if there is none.

    Args:
        forced: Whether it does; None to decide by the ratio of the voxel sides.
        current: Millimeters per voxel before, one for each of three axes.
        new: The same after.
    """
    if forced is False:
        return None
    ratios = [max(sides) / min(sides) for sides in (current, new)]
    if forced is None and max(ratios) <= _ANISOTROPIC:
        return None
    decisive = current if forced or ratios[0] > _ANISOTROPIC else new
    longest = [axis for axis, side in enumerate(decisive) if side == max(decisive)]
    return longest[0] if len(longest) == 1 else None


@dataclass(frozen=True)
class NnunetResampleInverse(ResampleInverse):
    """The way of nnU-Net back to the voxels of the image.

    Attributes:
        orders: 0 for the nearest voxel, 1 for linear interpolation, for each axis.
    """

    orders: tuple[Literal[0, 1], ...] = ()
    outputs_first = True

    def __call__(self, values: Tensor, mode: Mode) -> Tensor:
        """``(C, *spatial)`` on the old grid; ``value`` as nnU-Net brings outputs back."""
        if mode != "value":
            return super().__call__(values, mode)
        for axis, (order, first, width) in enumerate(
            zip(self.orders, self.start, self.step, strict=True)
        ):
            values = self._along(values, axis, order, -first / width, 1 / width)
        return values

    def _along(self, values: Tensor, axis: int, order: int, start: float, step: float) -> Tensor:
        source, target = self.shape[axis], self.grid.shape[axis]
        if unchanged(source, target, start, step):
            return values
        shape = list(values.shape[1:])
        if order == 0:
            starts, steps = [0.0] * len(shape), [1.0] * len(shape)
            shape[axis], starts[axis], steps[axis] = target, start, step
            return nearest(values, shape, starts, steps)
        matrices: list[Tensor | None] = [None] * len(shape)
        matrices[axis] = value_weights(source, target, start, step, antialias=False)
        return along_axes(values, matrices)
