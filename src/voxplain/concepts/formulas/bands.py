"""Bands of the activations of a unit: values that lie close together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_ROUNDS = 100


def band_borders(edges: Array, counts: Array, bands: int) -> Array:
    """Borders between bands of values, by k-means in one dimension.

    Paper: La Rosa et al., Towards a fuller understanding of neurons with clustered compositional
    explanations, 2023.

    Args:
        edges: Ascending activations, ``(units, edges)``.
        counts: Voxels below the first, between two and from the last on, ``(units, edges + 1)``.
        bands: How many.

    Returns:
        ``(units, bands - 1)``; a value at a border belongs to the band above it.
    """
    values = np.concatenate([edges[:, :1], edges], axis=1)
    reached = counts.cumsum(axis=1) / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    starts = (np.arange(bands) + 0.5) / bands
    first = np.stack([(reached < start).sum(axis=1) for start in starts], axis=1)
    centers = np.take_along_axis(values, np.minimum(first, values.shape[1] - 1), axis=1)
    for _ in range(_ROUNDS):
        borders = (centers[:, 1:] + centers[:, :-1]) / 2
        band = (values[:, :, None] >= borders[:, None]).sum(axis=2)
        member = (band[:, :, None] == np.arange(bands)) * counts[:, :, None]
        weight = member.sum(axis=1)
        means = (member * values[:, :, None]).sum(axis=1) / np.maximum(weight, 1)
        moved = np.sort(np.where(weight > 0, means, centers), axis=1)
        if np.allclose(moved, centers, rtol=1e-9, atol=0):
            break
        centers = moved
    return np.asarray((centers[:, 1:] + centers[:, :-1]) / 2)
