"""Sizes in voxels, fractions of an axis, or millimeters."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator

from voxplain.errors import ConfigError

Scalar = int | float | str
_MILLIMETERS = re.compile(r"\s*(\d+(?:\.\d+)?)\s*mm\s*")


def _checked(extent: Scalar | tuple[Scalar, ...]) -> Scalar | tuple[Scalar, ...]:
    for size in extent if isinstance(extent, tuple) else (extent,):
        if isinstance(size, str) and not _MILLIMETERS.fullmatch(size):
            raise ValueError(
                f"{size!r} is not a size; write 16 (voxels), 0.25 (of an axis) or '8mm'"
            )
        if isinstance(size, float) and size > 1:
            raise ValueError(f"{size} would be {size} times the axis; write {size:.0f} for voxels")
        if not isinstance(size, str) and size < 0:
            raise ValueError(f"a size cannot be negative, and this is {size}")
    return extent


Extent = Annotated[Scalar | tuple[Scalar, ...], AfterValidator(_checked)]
"""An int is a number of voxels, a float a fraction of the axis, ``"8mm"`` a length."""


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


def _voxels(size: Scalar, length: int, millimeters: float) -> int:
    if isinstance(size, str):
        match = _MILLIMETERS.fullmatch(size)
        if not match:
            raise ConfigError(f"{size!r} is not a size; write 16, 0.25 or '8mm'")
        if math.isnan(millimeters):
            raise ConfigError(f"{size!r} needs the pixel size of the image, which is unknown")
        return round(float(match[1]) / millimeters)
    return size if isinstance(size, int) else round(size * length)
