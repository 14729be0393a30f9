"""How alike two maps are: order, structure, and the direction of their edges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from voxplain.metrics.curves import correlation, rank_correlation
from voxplain.metrics.map_field import Undefined

_HOG_SIDE = 32
"""Planes are shown to the HOG at this side: 4 x 4 cells of 8 pixels."""


@dataclass(frozen=True)
class Similarity:
    """1 is the same map; NaN where a map is constant.

    Attributes:
        spearman: Of signed values.
        spearman_absolute: Of magnitudes.
        ssim: Of maps scaled by their own q1 to q99.
        hog: Correlation of the histograms of oriented gradients of the middle planes.
    """

    spearman: float
    spearman_absolute: float
    ssim: float
    hog: float


def similarity(first: Tensor, second: Tensor) -> Similarity:
    """Compares two maps ``(*spatial)``."""
    one, other = first.double().cpu(), second.double().cpu()
    if not (torch.isfinite(one).all() and torch.isfinite(other).all()):
        return Similarity(*[float("nan")] * 4)
    return Similarity(
        spearman=_or_nan(rank_correlation, one, other),
        spearman_absolute=_or_nan(rank_correlation, one.abs(), other.abs()),
        ssim=_or_nan(ssim, one, other),
        hog=_or_nan(hog_correlation, one, other),
    )


def ssim(first: Tensor, second: Tensor) -> float:
    """Structural similarity, with the declared data range 1; windows of 7 voxels or fewer.

    Raises:
        Undefined: If a map is constant.
    """
    from skimage.metrics import structural_similarity

    one, other = (_scaled(map.squeeze()) for map in (first, second))
    side = min(7, *one.shape) if one.ndim else 1
    side -= side % 2 == 0
    if side < 3:
        raise Undefined("the map is too small for a structural similarity")
    value = structural_similarity(one, other, win_size=side, data_range=1.0)  # type: ignore[no-untyped-call]
    return float(value)


def _scaled(map: Tensor) -> NDArray[np.float64]:
    """Between its own quantiles 1 % (0) and 99 % (1), clipped."""
    values = map.numpy()
    low, high = np.quantile(values, [0.01, 0.99])
    if high <= low:
        low, high = values.min(), values.max()
    if high <= low:
        raise Undefined("the map is constant")
    scaled: NDArray[np.float64] = np.clip((values - low) / (high - low), 0, 1)
    return scaled


def hog_correlation(first: Tensor, second: Tensor) -> float:
    """Correlation of the HOG features of the middle planes, one per pair of axes.

    Raises:
        Undefined: If a map is constant.
    """
    return correlation(_hog(first), _hog(second))


def _hog(map: Tensor) -> Tensor:
    from skimage.feature import hog
    from skimage.transform import resize

    scaled = torch.from_numpy(_scaled(map.squeeze()))
    features = []
    for plane in _planes(scaled):
        side = (_HOG_SIDE, _HOG_SIDE)
        shown = resize(plane.numpy(), side, order=1, anti_aliasing=True)  # type: ignore[no-untyped-call]
        features.append(
            torch.from_numpy(
                hog(shown, orientations=8, pixels_per_cell=(8, 8), cells_per_block=(1, 1))
            )
        )
    return torch.cat(features)


def _planes(map: Tensor) -> list[Tensor]:
    """The middle plane along every axis; the map itself in 2-D."""
    if map.ndim < 2:
        return [map.reshape(1, -1).expand(2, -1)]
    if map.ndim == 2:
        return [map]
    return [map.select(axis, map.shape[axis] // 2) for axis in range(map.ndim)]


def _or_nan(measure: Callable[[Tensor, Tensor], float], first: Tensor, second: Tensor) -> float:
    try:
        return float(measure(first, second))
    except Undefined:
        return float("nan")
