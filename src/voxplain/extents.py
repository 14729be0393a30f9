"""Sizes as people state them: voxels, fractions of an axis, or millimeters."""

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
    for part in extent if isinstance(extent, tuple) else (extent,):
        if isinstance(part, str) and not _MILLIMETERS.fullmatch(part):
            raise ValueError(
                f"{part!r} is not a size; write 16 (voxels), 0.25 (of an axis) or '8mm'"
            )
        if isinstance(part, float) and part > 1:
            raise ValueError(f"{part} would be {part} times the axis; write {part:.0f} for voxels")
        if not isinstance(part, str) and part < 0:
            raise ValueError(f"a size cannot be negative, and this is {part}")
    return extent


Extent = Annotated[Scalar | tuple[Scalar, ...], AfterValidator(_checked)]
"""An int counts voxels, a float is a fraction of the axis, ``"8mm"`` is a length."""


def resolve(
    extent: Scalar | Sequence[Scalar], shape: Sequence[int], spacing: Sequence[float] | None
) -> tuple[int, ...]:
    """An extent in whole voxels per axis.

    Args:
        extent: One value for all axes or one per axis.
        shape: Spatial shape that fractions refer to.
        spacing: Millimeters per voxel, or None where unknown.

    Raises:
        ConfigError: If millimeters are asked of an image without physical size, or the number
            of values is not the number of axes.
    """
    single = isinstance(extent, (int, float, str))
    parts = [extent] * len(shape) if single else list(extent)  # type: ignore[arg-type]
    if len(parts) != len(shape):
        raise ConfigError(f"{len(parts)} sizes {parts} for an image with {len(shape)} axes")
    scale = spacing if spacing is not None else [math.nan] * len(shape)
    return tuple(_voxels(*axis) for axis in zip(parts, shape, scale, strict=True))  # type: ignore[arg-type]


def _voxels(part: Scalar, size: int, millimeters: float) -> int:
    if isinstance(part, str):
        found = _MILLIMETERS.fullmatch(part)
        if not found:
            raise ConfigError(f"{part!r} is not a size; write 16, 0.25 or '8mm'")
        if math.isnan(millimeters):
            raise ConfigError(f"{part!r} needs the pixel size of the image, which is unknown")
        return round(float(found[1]) / millimeters)
    return part if isinstance(part, int) else round(part * size)
