"""Similarity of two maps: order of the voxels, structure, and direction of edges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from voxplain.metrics.curves import correlation, rank_correlation
from voxplain.metrics.maps import Undefined

Measure = Literal["spearman", "spearman_absolute", "ssim", "hog"]

_HOG_SIDE = 32
"""Planes are resampled to this side for the HOG: 4 x 4 cells of 8 pixels."""


@dataclass(frozen=True)
class Similarity:
    """Four measures of similarity; 1 for the same map, NaN where a map is constant.

    Attributes:
        spearman: Rank correlation of signed values.
        spearman_absolute: Rank correlation of magnitudes.
        ssim: Structural similarity of maps scaled by their own quantiles 1 % and 99 %.
        hog: Correlation of the histograms of oriented gradients of the middle planes.
    """

    spearman: float
    spearman_absolute: float
    ssim: float
    hog: float


def similarity(first: Tensor, second: Tensor) -> Similarity:
    """Compares two maps ``(*spatial)``."""
    first, second = first.double().cpu(), second.double().cpu()
    if not (torch.isfinite(first).all() and torch.isfinite(second).all()):
        return Similarity(*[float("nan")] * 4)
    return Similarity(
        spearman=_or_nan(rank_correlation, first, second),
        spearman_absolute=_or_nan(rank_correlation, first.abs(), second.abs()),
        ssim=_or_nan(ssim, first, second),
        hog=_or_nan(hog_correlation, first, second),
    )


def ssim(first: Tensor, second: Tensor) -> float:
    """Structural similarity, with data range 1 and windows of at most 7 voxels.

    Raises:
        Undefined: If a map is constant.
    """
    from skimage.metrics import structural_similarity

    scaled = [_scaled(values.squeeze()) for values in (first, second)]
    side = min(7, *scaled[0].shape) if scaled[0].ndim else 1
    side -= side % 2 == 0
    if side < 3:
        raise Undefined("the map is too small for a structural similarity")
    value = structural_similarity(*scaled, win_size=side, data_range=1.0)  # type: ignore[no-untyped-call]
    return float(value)


def _scaled(values: Tensor) -> NDArray[np.float64]:
    """Between its own quantiles 1 % (0) and 99 % (1), clipped."""
    array = values.numpy()
    low, high = np.quantile(array, [0.01, 0.99])
    if high <= low:
        low, high = array.min(), array.max()
    if high <= low:
        raise Undefined("the map is constant")
    scaled: NDArray[np.float64] = np.clip((array - low) / (high - low), 0, 1)
    return scaled


def hog_correlation(first: Tensor, second: Tensor) -> float:
    """Correlation of the HOG features of the middle planes, one plane per axis.

    Raises:
        Undefined: If a map is constant.
    """
    return correlation(_hog(first), _hog(second))


def _hog(values: Tensor) -> Tensor:
    from skimage.feature import hog
    from skimage.transform import resize

    scaled = torch.from_numpy(_scaled(values.squeeze()))
    features = []
    for plane in _middle_planes(scaled):
        side = (_HOG_SIDE, _HOG_SIDE)
        small = resize(plane.numpy(), side, order=1, anti_aliasing=True)  # type: ignore[no-untyped-call]
        histograms = hog(small, orientations=8, pixels_per_cell=(8, 8), cells_per_block=(1, 1))
        features.append(torch.from_numpy(histograms))
    return torch.cat(features)


def _middle_planes(values: Tensor) -> list[Tensor]:
    """The middle plane along every axis; the map itself in 2-D."""
    if values.ndim < 2:
        return [values.reshape(1, -1).expand(2, -1)]
    if values.ndim == 2:
        return [values]
    return [values.select(axis, values.shape[axis] // 2) for axis in range(values.ndim)]


def _or_nan(measure: Callable[[Tensor, Tensor], float], first: Tensor, second: Tensor) -> float:
    try:
        return float(measure(first, second))
    except Undefined:
        return float("nan")
