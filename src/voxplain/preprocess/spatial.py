"""Steps that change the order, the spacing or the number of voxels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
from nibabel.orientations import axcodes2ornt, io_orientation
from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer
from torch import Tensor

from voxplain.errors import ConfigError
from voxplain.extents import Extent, require_bounded, resolve
from voxplain.image import Grid, Image
from voxplain.preprocess.inverses import AxesInverse, ResampleInverse, unchanged
from voxplain.preprocess.resample import along_axes, nearest, triangle_weights, value_weights
from voxplain.preprocess.step import Step, moved, per_axis

Interpolation = Literal["linear", "nearest"]
Millimeters = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Reorient(Step):
    """Permutes and flips the axes to an anatomical orientation.

    Nothing is interpolated: an oblique scan stays oblique, with the nearest axis order. For a 2-D
    image only the letters of its two axes count (a sagittal slice and ``RAS`` give ``AS``).

    Attributes:
        axes: The direction of each axis, one letter of each of R/L, A/P, S/I.
    """

    kind: Literal["reorient"] = "reorient"
    axes: str = "RAS"

    @field_validator("axes")
    @classmethod
    def _one_of_each(cls, axes: str) -> str:
        axes = axes.upper()
        if sorted("RASRAS"["RASLPI".find(letter)] for letter in axes) != ["A", "R", "S"] or (
            set(axes) - set("RASLPI")
        ):
            raise ValueError(
                f"{axes!r} is not an orientation; write three letters such as RAS or LPS"
            )
        return axes

    def apply(self, image: Image) -> Image:
        """The image in the new axis order; the same object if it is in that order.

        Raises:
            ConfigError: If the image has no anatomical axes.
        """
        grid = image.grid
        if grid.unit == "pixel" or (grid.rank == 2 and not grid.code):
            raise ConfigError("reorient: a picture has no anatomical axes; leave this step out")
        order, flips = _axes_toward(grid, self.axes)
        if order == tuple(range(grid.rank)) and not any(flips):
            return image
        inverse = AxesInverse(self.kind, grid, order, flips)
        return moved(image, inverse.forward(image.data), ordered(grid, order, flips), inverse)


class Spacing(Step):
    """Resamples to a voxel size in millimeters.

    Linear resampling keeps linear ramps, and is anti-aliased toward a coarser grid unless switched
    off. The field of view keeps its center, and the number of voxels is the old extent divided by
    the new size, rounded; MONAI counts from the center of the first voxel to that of the last.

    Attributes:
        size: Millimeters, for all axes or one per axis; None leaves that axis unchanged.
        interpolation: ``nearest`` for images whose values are labels.
        antialias: False samples the linear interpolation, as MONAI and nnU-Net do; as the network
            was trained.
        align: ``center`` for the field of view; ``monai`` for the voxels of MONAI, whose first one
            stays where it is, or, where an oblique affine is rounded, whose middle index does. It
            takes sizes that are a thousandth of a millimeter apart for the same.
    """

    kind: Literal["spacing"] = "spacing"
    size: Millimeters | tuple[Millimeters | None, ...] = 1.0
    interpolation: Interpolation = "linear"
    antialias: bool = True
    align: Literal["center", "monai"] = "center"

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without the defaults, so that runs from before there was a choice have equal keys."""
        written: dict[str, Any] = write(self)
        if self.antialias:
            written.pop("antialias", None)
        if self.align == "center":
            written.pop("align", None)
        return written

    def apply(self, image: Image) -> Image:
        """The resampled image; the same object if it has that spacing.

        Raises:
            ConfigError: If the physical size of the image is unknown.
        """
        grid = image.grid
        if grid.unit == "pixel":
            raise ConfigError("spacing: the pixel size of the image is unknown; use resize instead")
        size: tuple[float | None, ...] = per_axis(self.size, grid.rank, "spacing.size")
        sides = list(zip(size, grid.spacing, strict=True))
        step = [self._step(old if new is None else new, old) for new, old in sides]
        shape = [self._count(n, width) for n, width in zip(grid.shape, step, strict=True)]
        _require_within(size, grid)
        require_bounded(shape, "spacing.size")
        weights = self._weights if self.interpolation == "linear" else None
        start = _monai_start(grid, step, shape) if self.align == "monai" else None
        return _resampled(image, self.kind, shape, step, weights, start)

    def _step(self, new: float, old: float) -> float:
        """Old voxels per new voxel; 1 where the sizes are the same but for rounding."""
        same = abs(new - old) <= 1e-3 if self.align == "monai" else abs(new / old - 1) < 1e-5
        return 1.0 if same else new / old

    def _count(self, length: int, step: float) -> int:
        if self.align == "monai":
            return round((length - 1) / step + 1)
        return max(1, math.floor(length / step + 0.5))

    def _weights(self, source: int, target: int, start: float, step: float) -> Tensor:
        return value_weights(source, target, start, step, self.antialias)


def _monai_start(grid: Grid, step: Sequence[float], shape: Sequence[int]) -> list[float]:
    """Place of the first new voxel in old voxels, as in ``compute_shape_offset`` of MONAI."""
    if grid.rank < 3:
        return [0.0] * grid.rank
    old = grid.affine[:3, :3]
    scales = np.linalg.cholesky(old.T @ old).T
    new = old @ np.linalg.inv(scales) @ np.diag(np.diag(scales) * step)
    ends = np.stack(np.meshgrid(*((0.0, n - 1.0) for n in grid.shape), indexing="ij"))
    corners = np.linalg.solve(new, old) @ ends.reshape(3, -1)
    if np.allclose(corners.min(axis=1), 0):
        return [0.0] * grid.rank
    axes = zip(grid.shape, shape, step, strict=True)
    return [(length - count * width) / 2 for length, count, width in axes]


class Resize(Step):
    """Resamples to a number of voxels as Pillow and torch do; the field of view stays the same.

    Attributes:
        shape: Voxels (int), a fraction of the axis (float) or a length (``"240mm"``), for all axes
            or one per axis.
        interpolation: ``nearest`` for images whose values are labels.
        antialias: True as in Pillow and torchvision, false as in MONAI; as the network was
            trained.
    """

    kind: Literal["resize"] = "resize"
    shape: Extent
    interpolation: Interpolation = "linear"
    antialias: bool = True

    def apply(self, image: Image) -> Image:
        """The resized image; the same object if it has that shape.

        Raises:
            ConfigError: If the shape leaves no voxel along an axis.
        """
        grid = image.grid
        shape = resolve(self.shape, grid.shape, grid.spacing_mm)
        if min(shape) < 1:
            raise ConfigError(f"resize.shape: {list(shape)} leaves no voxel on one axis")
        require_bounded(shape, "resize.shape")
        step = [old / new for old, new in zip(grid.shape, shape, strict=True)]
        weights = self._weights if self.interpolation == "linear" else None
        return _resampled(image, self.kind, shape, step, weights)

    def _weights(self, source: int, target: int, start: float, step: float) -> Tensor:
        return triangle_weights(source, target, step, self.antialias)


def _require_within(size: Sequence[float | None], grid: Grid) -> None:
    """Refuses voxels more than twice as large as an image of several voxels."""
    for new, old, length in zip(size, grid.spacing, grid.shape, strict=True):
        if new is not None and length > 1 and new > 2 * length * old:
            raise ConfigError(
                f"spacing.size: a voxel of {new:g} mm is larger than the whole image, which "
                f"measures {length * old:g} mm along one axis"
            )


def _axes_toward(grid: Grid, axes: str) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """For each new axis the number of the old axis, and whether it is reversed."""
    orientation = io_orientation(grid.affine)[: grid.rank]
    order, flips = [], []
    for world, direction in axcodes2ornt(tuple(axes)):
        old_axes = np.flatnonzero(orientation[:, 0] == world)
        if len(old_axes):
            order.append(int(old_axes[0]))
            flips.append(bool(orientation[old_axes[0], 1] != direction))
    return tuple(order), tuple(flips)


def ordered(grid: Grid, order: tuple[int, ...], flips: tuple[bool, ...]) -> Grid:
    """The grid with its axes in another order, some of them reversed."""
    shape = tuple(grid.shape[axis] for axis in order)
    old_index = np.eye(4)
    old_index[: grid.rank, : grid.rank] = 0
    for new, (old, flip) in enumerate(zip(order, flips, strict=True)):
        old_index[old, new] = -1 if flip else 1
        old_index[old, 3] = shape[new] - 1 if flip else 0
    return replace(grid, shape=shape, affine=grid.affine @ old_index)


def _resampled(
    image: Image,
    kind: str,
    shape: Sequence[int],
    step: Sequence[float],
    weights: Callable[[int, int, float, float], Tensor] | None,
    start: Sequence[float] | None = None,
) -> Image:
    """The image resampled around its center, or from the first voxel on.

    Args:
        image: The image.
        kind: Kind of the step.
        shape: New number of voxels per axis.
        step: Old voxels per new voxel, per axis.
        weights: The matrix of one axis, from old size, new size, start and step; None for the
            nearest voxel.
        start: Place of the first new voxel in old voxels, per axis; None for the same center.
    """
    grid = image.grid
    if start is None:
        axes = zip(grid.shape, shape, step, strict=True)
        start = [((old - 1) - (new - 1) * width) / 2 for old, new, width in axes]
    resampling = list(zip(grid.shape, shape, start, step, strict=True))
    if all(unchanged(*axis) for axis in resampling):
        return image
    if weights is None:
        data = nearest(image.data, shape, start, step)
    else:
        matrices = [None if unchanged(*axis) else weights(*axis) for axis in resampling]
        data = along_axes(image.data, matrices)
    inverse = ResampleInverse(kind, grid, tuple(shape), tuple(start), tuple(step))
    return moved(image, data, grid.sub(start, step, shape), inverse)
