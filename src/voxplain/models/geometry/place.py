"""The map of a layer brought to the grid of the network's input, each cell at its own place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from voxplain.errors import ModelError
from voxplain.models.geometry.layer import LayerGeometry


def place(
    map: Tensor,
    geometry: LayerGeometry,
    shape: Sequence[int],
    mode: Literal["linear", "nearest"] = "linear",
) -> Tensor:
    """Interpolates a layer map so that cell ``i`` appears at voxel ``start + stride * i``.

    ``F.interpolate(align_corners=False)`` assumes ``start = (stride - 1) / 2``, which is wrong by
    7.5 voxels after four 3x3 convolutions of stride 2; where it is right the results are equal.

    Args:
        map: ``(K, *cells)``, any number of leading channels.
        geometry: Of the layer, ``geometry.shape == map.shape[1:]``.
        shape: Spatial shape of the input.
        mode: Linear along every axis, or the nearest cell.

    Returns:
        ``(K, *shape)`` in float32 (float64 stays); beyond the outermost cells their value goes on.

    Raises:
        ModelError: If the map does not have the cells of the geometry.
    """
    if tuple(map.shape[1:]) != geometry.shape or len(shape) != len(geometry.shape):
        raise ModelError(
            f"a map of shape {tuple(map.shape)} does not fit a layer with cells {geometry.shape} "
            f"under an image of shape {tuple(shape)}"
        )
    placed = map if map.dtype == torch.float64 else map.to(torch.float32)
    # The axes that grow least go first, so that the large arrays are touched least often.
    for axis in sorted(range(len(shape)), key=lambda one: shape[one] / geometry.shape[one]):
        index = torch.arange(shape[axis], dtype=torch.float64, device=map.device)
        cell = (index - geometry.start[axis]) / geometry.stride[axis]
        placed = _along(placed, axis + 1, cell.clamp(0, geometry.shape[axis] - 1), mode)
    return placed


def _along(map: Tensor, dim: int, cell: Tensor, mode: str) -> Tensor:
    """Samples one dimension at fractional cells, all within it."""
    if mode == "nearest":
        return map.index_select(dim, (cell + 0.5).floor().long().clamp(max=map.shape[dim] - 1))
    low = cell.floor().long()
    fraction = (cell - low).to(map.dtype).reshape(-1, *[1] * (map.ndim - 1 - dim))
    if not fraction.any():
        return map.index_select(dim, low)
    high = (low + 1).clamp(max=map.shape[dim] - 1)
    return torch.lerp(map.index_select(dim, low), map.index_select(dim, high), fraction)
