"""Which values the colors and the grays stand for, and which part of an image to show."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def robust_limit(*maps: Array, percentile: float = 99.5) -> float:
    """The symmetric end of a color scale: a percentile of ``|map|`` over the whole volume.

    Args:
        maps: Arrays that share the scale; NaN is ignored.
        percentile: In percent. Where a map is sparser than that, only its non-zero values count.

    Returns:
        A positive number; 1 for a map that is zero everywhere.
    """
    limits = [_percentile(np.abs(array[np.isfinite(array)]), percentile) for array in maps]
    return max(limits, default=0.0) or 1.0


def _percentile(magnitude: Array, percentile: float) -> float:
    if not magnitude.any():
        return 0.0
    value = float(np.percentile(magnitude, percentile))
    return value or float(np.percentile(magnitude[magnitude > 0], percentile))


def gray_window(image: Array) -> tuple[float, float]:
    """Black and white point of one source channel: percentiles 0.5 and 99.5 of its foreground."""
    values = image[foreground(image)]
    values = values[np.isfinite(values)]
    if values.size == 0 or values.min() == values.max():
        center = float(values[0]) if values.size else 0.0
        return center - 0.5, center + 0.5
    low, high = np.percentile(values, (0.5, 99.5))
    low = min(low, _background(image)) if values.size < image.size else low
    return float(low), float(max(high, low + 1e-6))


def foreground(image: Array) -> NDArray[np.bool_]:
    """Voxels that differ from the value at the border by more than 4 % of the robust range."""
    finite = np.nan_to_num(image.astype(np.float32))
    low, high = np.percentile(finite, (0.5, 99.5))
    mask = np.abs(finite - _background(finite)) > 0.04 * max(high - low, 1e-12)
    return np.asarray(mask if mask.any() else np.ones(image.shape, dtype=bool))


def _background(image: Array) -> float:
    sides = [side for axis in range(image.ndim) for side in _ends(image, axis)]
    return float(np.nanmedian(np.concatenate([side.ravel() for side in sides])))


def _ends(image: Array, axis: int) -> list[Array]:
    if image.shape[axis] == 1:
        return []
    return [image.take(0, axis), image.take(-1, axis)]


def bounding_box(*masks: NDArray[np.bool_], margin: int = 3) -> tuple[slice, ...]:
    """The smallest box around the union of some masks, with a margin in voxels."""
    mask = np.logical_or.reduce(masks)
    return tuple(_bounds(mask, axis, margin) for axis in range(mask.ndim))


def _bounds(mask: NDArray[np.bool_], axis: int, margin: int) -> slice:
    others = tuple(other for other in range(mask.ndim) if other != axis)
    hits = np.flatnonzero(mask.any(axis=others))
    if hits.size == 0:
        return slice(0, mask.shape[axis])
    return slice(max(int(hits[0]) - margin, 0), min(int(hits[-1]) + 1 + margin, mask.shape[axis]))


def strongest(map: Array) -> tuple[int, ...]:
    """Index of the maximum of ``|map|``; NaN counts as zero, a map of zeros gives its center."""
    magnitude = np.abs(np.nan_to_num(map))
    if not magnitude.any():
        return tuple(size // 2 for size in map.shape)
    return tuple(int(i) for i in np.unravel_index(int(magnitude.argmax()), map.shape))
