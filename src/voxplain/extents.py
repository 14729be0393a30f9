"""Sizes in voxels, fractions of an axis, or millimeters."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator

from voxplain.errors import ConfigError

Scalar = int | float | str
_LONGEST_AXIS = 100_000
_MILLIMETERS = re.compile(r"\s*(\d+(?:\.\d+)?)\s*mm\s*")


def _checked(extent: Scalar | tuple[Scalar, ...]) -> Scalar | tuple[Scalar, ...]:
    for size in extent if isinstance(extent, tuple) else (extent,):
        if isinstance(size, float) and not math.isfinite(size):
            raise ValueError(f"{size} is not a size; write 16 (voxels), 0.25 (of an axis) or '8mm'")
        if isinstance(size, int) and size > _LONGEST_AXIS:
            raise ValueError(f"{size:,} voxels are more than any image has along an axis")
        if isinstance(size, str) and not _MILLIMETERS.fullmatch(size):
            raise ValueError(
                f"{size!r} is not a size; write 16 (voxels), 0.25 (of an axis) or '8mm'"
            )
        if isinstance(size, float) and size > 1:
            raise ValueError(f"{size} would be {size} times the axis; write {size:.0f} for voxels")
        if not isinstance(size, str) and size < 0:
            raise ValueError(f"a size cannot be negative, and this is {size}")
    return extent


def _above_zero(extent: Scalar | tuple[Scalar, ...]) -> Scalar | tuple[Scalar, ...]:
    for size in extent if isinstance(extent, tuple) else (extent,):
        match = _MILLIMETERS.fullmatch(size) if isinstance(size, str) else None
        if (float(match[1]) if match else size) == 0:
            raise ValueError("a size of 0 holds no voxel; write 1 or more")
    return extent


Extent = Annotated[Scalar | tuple[Scalar, ...], AfterValidator(_checked)]
"""An int is a number of voxels, a float a fraction of the axis, ``"8mm"`` a length."""

PositiveExtent = Annotated[Extent, AfterValidator(_above_zero)]
"""An extent above 0."""


def _a_length(length: int | str) -> int | str:
    if isinstance(length, bool) or (isinstance(length, str) and not _MILLIMETERS.fullmatch(length)):
        raise ValueError(f"{length!r} is not a length; write 3 (voxels) or '8mm'")
    if isinstance(length, int) and length < 0:
        raise ValueError(f"a length cannot be negative, and this is {length}")
    return length


Length = Annotated[int | str, AfterValidator(_a_length)]
"""A distance in any direction: an int is in voxels, ``"8mm"`` in millimeters."""

MOST_VOXELS = 2**31
"""What one image or window may hold: 8 GB of float32 per channel."""


def require_bounded(shape: Sequence[int], what: str) -> None:
    """Refuses a shape that no image has, before memory is taken for it.

    Raises:
        ConfigError: If it has more than :data:`MOST_VOXELS` voxels.
    """
    if math.prod(shape) > MOST_VOXELS:
        sides = " x ".join(f"{side:,}" for side in shape)
        raise ConfigError(f"{what} asks for {sides} voxels, and {MOST_VOXELS:,} are the most")


def resolve(
    extent: Scalar | Sequence[Scalar], shape: Sequence[int], spacing: Sequence[float] | None
) -> tuple[int, ...]:
    """An extent as a number of voxels along each axis.

    Args:
        extent: One value for all axes, or one per axis.
        shape: Spatial shape that fractions refer to.
        spacing: Millimeters per voxel, or None where unknown.

    Raises:
        ConfigError: If millimeters are given for an image of unknown physical size, or the number
            of values is not the number of axes.
    """
    single = isinstance(extent, (int, float, str))
    sizes = [extent] * len(shape) if single else list(extent)  # type: ignore[arg-type]
    if len(sizes) != len(shape):
        raise ConfigError(f"{len(sizes)} sizes {sizes} for an image with {len(shape)} axes")
    scale = spacing if spacing is not None else [math.nan] * len(shape)
    return tuple(_voxels(*axis) for axis in zip(sizes, shape, scale, strict=True))  # type: ignore[arg-type]


def measured(
    length: int | str, rank: int, spacing: Sequence[float] | None
) -> tuple[float, tuple[float, ...]]:
    """A length, and the size of a voxel along each axis in the same unit.

    Args:
        length: In voxels, or in millimeters such as ``"8mm"``.
        rank: Number of spatial axes.
        spacing: Millimeters per voxel, or None where unknown.

    Raises:
        ConfigError: If millimeters are given for an image of unknown physical size.
    """
    if not isinstance(length, str):
        return float(length), (1.0,) * rank
    match = _MILLIMETERS.fullmatch(length)
    if not match:
        raise ConfigError(f"{length!r} is not a length; write 3 or '8mm'")
    if spacing is None:
        raise ConfigError(f"{length!r} needs the pixel size of the image, which is unknown")
    return float(match[1]), tuple(spacing)


def _voxels(size: Scalar, length: int, millimeters: float) -> int:
    if isinstance(size, str):
        match = _MILLIMETERS.fullmatch(size)
        if not match:
            raise ConfigError(f"{size!r} is not a size; write 16, 0.25 or '8mm'")
        if math.isnan(millimeters):
            raise ConfigError(f"{size!r} needs the pixel size of the image, which is unknown")
        return round(float(match[1]) / millimeters)
    return size if isinstance(size, int) else round(size * length)
