"""Bands of the activations of a unit: values that lie close together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def band_borders(edges: Array, counts: Array, bands: int) -> Array:
    """Borders between bands of values: k-means in one dimension, solved exactly.

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
    return np.stack([_borders(*row, bands) for row in zip(values, counts, strict=True)])


def _borders(values: Array, counts: Array, bands: int) -> Array:
    """The borders of one unit, by dynamic programming over the first values."""
    spread = _spread(values, counts)
    best, starts = spread[0], []
    for _ in range(bands - 1):
        every = best[:, None] + spread
        starts.append(every.argmin(axis=0))
        best = every.min(axis=0)
    place, borders = len(values), []
    for start in reversed(starts):
        place = int(start[place])
        inner = min(max(place, 1), len(values) - 1)
        borders.append((values[inner - 1] + values[inner]) / 2)
    return np.array(borders[::-1])


def _spread(values: Array, counts: Array) -> Array:
    """Sum of squared distances to their mean of the values from i up to before j; 0 for j <= i."""
    weight, first, second = (
        np.concatenate([[0.0], np.cumsum(counts * values**power)]) for power in (0, 1, 2)
    )
    count, total, square = (part[None] - part[:, None] for part in (weight, first, second))
    spread = square - total**2 / np.maximum(count, 1)
    size = len(weight)
    empty = np.arange(size)[:, None] >= np.arange(size)[None]
    after = np.arange(size)[:, None] > np.arange(size)[None]
    return np.where(after, np.inf, np.where(empty, 0.0, np.maximum(spread, 0.0)))
