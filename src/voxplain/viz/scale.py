"""Color limits, gray windows, foreground and the strongest voxel of maps and images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_SAMPLE = 2_000_000
"""Percentiles of larger arrays are taken over every n-th value."""


def robust_limit(*maps: Array, percentile: float = 99.5) -> float:
    """The magnitude at which a color scale ends: a percentile of ``|map|`` over the whole volume.

    Args:
        maps: Arrays that share the scale; NaN is ignored.
        percentile: In percent. Where that is zero, the percentile of the values that are not.

    Returns:
        A positive number; 1 for a map that is zero everywhere.
    """
    return max((_limit(array, percentile) for array in maps), default=0.0) or 1.0


def _limit(array: Array, percentile: float) -> float:
    sample = np.abs(_sample(array))
    value = float(np.percentile(sample, percentile)) if sample.size else 0.0
    if value > 0:
        return value
    magnitude = np.abs(array[np.isfinite(array) & (array != 0)])
    return float(np.percentile(magnitude, percentile)) if magnitude.size else 0.0


def _sample(array: Array) -> Array:
    # An odd step shares few factors with usual axis lengths and so visits rows and slices evenly.
    step = array.size // _SAMPLE
    flat = array.ravel(order="K")
    values = flat[:: step + (step % 2 == 0)] if step > 1 else flat
    return np.asarray(values[np.isfinite(values)])


def gray_window(image: Array) -> tuple[float, float]:
    """Black and white point of one source channel: percentiles 0.5 and 99.5 of its foreground."""
    mask = foreground(image)
    values = _sample(image[mask])
    if values.size == 0 or values.min() == values.max():
        center = float(values[0]) if values.size else 0.0
        return center - 0.5, center + 0.5
    low, high = np.percentile(values, (0.5, 99.5))
    low = low if mask.all() else min(low, _background(image))
    return float(low), float(max(high, low + 1e-6))


def foreground(image: Array) -> NDArray[np.bool_]:
    """Voxels that differ from the value at the border by more than 4 % of the robust range."""
    low, high = np.percentile(_sample(image), (0.5, 99.5)) if np.isfinite(image).any() else (0, 0)
    distance = np.abs(np.nan_to_num(image) - np.float32(_background(image)))
    mask = distance > 0.04 * max(high - low, 1e-12)
    return np.asarray(mask if mask.any() else np.ones(image.shape, dtype=bool))


def _background(image: Array) -> float:
    sides = [side for axis in range(image.ndim) for side in _first_and_last(image, axis)]
    border = np.concatenate([side.ravel() for side in sides]) if sides else image.ravel()
    border = border[np.isfinite(border)]
    return float(np.median(border)) if border.size else 0.0


def _first_and_last(image: Array, axis: int) -> list[Array]:
    if image.shape[axis] == 1:
        return []
    # By indexing, as `take` copies an array that is not in C order as a whole.
    slices = np.moveaxis(image, axis, 0)
    return [slices[0], slices[-1]]


def bounding_box(*masks: NDArray[np.bool_], margin: int = 3) -> tuple[slice, ...]:
    """The smallest box around the union of some masks, with a margin in voxels."""
    mask = np.logical_or.reduce(masks)
    return tuple(_bounds(mask, axis, margin) for axis in range(mask.ndim))


def _bounds(mask: NDArray[np.bool_], axis: int, margin: int) -> slice:
    others = tuple(other for other in range(mask.ndim) if other != axis)
    inside = np.flatnonzero(mask.any(axis=others))
    if inside.size == 0:
        return slice(0, mask.shape[axis])
    start, stop = int(inside[0]) - margin, int(inside[-1]) + 1 + margin
    return slice(max(start, 0), min(stop, mask.shape[axis]))


def strongest(values: Array) -> tuple[int, ...]:
    """The index of the largest magnitude; NaN counts as zero, and only zeros give the center."""
    # In the order of memory, as any other order would copy the values first.
    in_c_order = values.T if values.flags.f_contiguous else values
    magnitude = np.abs(in_c_order)
    magnitude[~np.isfinite(magnitude)] = 0
    if not magnitude.any():
        return tuple(size // 2 for size in values.shape)
    index = tuple(int(i) for i in np.unravel_index(int(magnitude.argmax()), in_c_order.shape))
    return index[::-1] if in_c_order is not values else index
