"""Maps of layers at chosen voxels of the network's input, by one sparse matrix."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from voxplain.models.geometry.layer import LayerGeometry


def interpolation(
    geometry: LayerGeometry,
    shape: Sequence[int],
    voxels: NDArray[np.int64],
    covered: Sequence[slice],
) -> scipy.sparse.csr_array:
    """The matrix that takes the cells of a layer to voxels, as :func:`place` interpolates them.

    Where few of the voxels of an image are wanted, or in another order, it is faster than placing
    whole maps: a product with it reads up to ``2 ** rank`` cells for every voxel.

    Args:
        geometry: Grid of the layer.
        shape: Spatial shape of the input.
        voxels: Positions in the flattened input.
        covered: The part of the input that the cells cover; voxels beyond it get 0.

    Returns:
        ``(voxels, cells)`` in float32, without zeros.
    """
    places = np.unravel_index(voxels, tuple(shape))
    axes = [
        _neighbors(place, start, stride, size)
        for place, start, stride, size in zip(
            places, geometry.start, geometry.stride, geometry.shape, strict=True
        )
    ]
    inside = np.ones(len(voxels), dtype=bool)
    for place, part in zip(places, covered, strict=True):
        inside &= (place >= part.start) & (place < part.stop)
    cells, weights = [], []
    for chosen in itertools.product(*map(_corners, axes)):
        index = np.zeros(len(voxels), dtype=np.int64)
        weight = inside.astype(np.float32)
        for (cell, share), size in zip(chosen, geometry.shape, strict=True):
            index = index * size + cell
            weight = weight * share
        cells.append(index)
        weights.append(weight)
    return _matrix(np.stack(cells, 1), np.stack(weights, 1), int(np.prod(geometry.shape)))


_Corner = tuple[NDArray[Any], NDArray[np.float32]]


def _neighbors(
    place: NDArray[np.int64], start: float, stride: float, size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """The cells before and after voxels of one axis, and how far these are from the first."""
    cell = np.clip((place - start) / stride, 0, size - 1)
    low = np.floor(cell).astype(np.int64)
    return low, np.minimum(low + 1, size - 1), (cell - low).astype(np.float32)


def _corners(
    axis: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]],
) -> list[_Corner]:
    """The cells that count along one axis with their weights; one alone on its own grid."""
    low, high, fraction = axis
    if not fraction.any():
        return [(low, np.ones_like(fraction))]
    return [(low, 1 - fraction), (high, fraction)]


def _matrix(
    cells: NDArray[np.int64], weights: NDArray[np.float32], count: int
) -> scipy.sparse.csr_array:
    """A sparse matrix of rows that have few cells each."""
    kept = weights != 0
    ends = np.concatenate([[0], kept.sum(axis=1).cumsum()])
    kind = np.int32 if max(ends[-1], count) < 2**31 else np.int64
    parts = (weights[kept], cells[kept].astype(kind), ends.astype(kind))
    return scipy.sparse.csr_array(parts, shape=(len(cells), count))
