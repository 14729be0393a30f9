"""Maps of layers on the grid of the network's input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from voxplain.errors import ModelError
from voxplain.models.geometry.layer import LayerGeometry


def place(
    layer_map: Tensor,
    geometry: LayerGeometry,
    shape: Sequence[int],
    mode: Literal["linear", "nearest"] = "linear",
) -> Tensor:
    """A layer map interpolated to the input grid, with cell ``i`` at voxel ``start + stride * i``.

    ``F.interpolate(align_corners=False)`` assumes ``start = (stride - 1) / 2``, which is wrong by
    7.5 voxels after four 3x3 convolutions of stride 2; where it is right the results are equal.

    Args:
        layer_map: ``(K, *cells)`` with any number of channels.
        geometry: Grid of the layer, with ``geometry.shape == layer_map.shape[1:]``.
        shape: Spatial shape of the input.
        mode: Linear along every axis, or the nearest cell.

    Returns:
        ``(K, *shape)`` in float32 or float64; beyond the outermost cells with their value.

    Raises:
        ModelError: If the map does not have the cells of the geometry.
    """
    if tuple(layer_map.shape[1:]) != geometry.shape or len(shape) != len(geometry.shape):
        raise ModelError(
            f"a map of shape {tuple(layer_map.shape)} does not fit a layer with cells "
            f"{geometry.shape} under an image of shape {tuple(shape)}"
        )
    placed = layer_map if layer_map.dtype == torch.float64 else layer_map.to(torch.float32)
    # Axes that grow least come first, so that large arrays are interpolated least often.
    growth = [size / cells for size, cells in zip(shape, geometry.shape, strict=True)]
    for axis in sorted(range(len(shape)), key=lambda axis: growth[axis]):
        index = torch.arange(shape[axis], dtype=torch.float64, device=layer_map.device)
        cell = (index - geometry.start[axis]) / geometry.stride[axis]
        placed = _along(placed, axis + 1, cell.clamp(0, geometry.shape[axis] - 1), mode)
    return placed


def _along(values: Tensor, dim: int, cell: Tensor, mode: str) -> Tensor:
    """The values at fractional cells of one dimension, all within it."""
    last = values.shape[dim] - 1
    if mode == "nearest":
        return values.index_select(dim, (cell + 0.5).floor().long().clamp(max=last))
    low = cell.floor().long()
    fraction = (cell - low).to(values.dtype).reshape(-1, *[1] * (values.ndim - 1 - dim))
    if not fraction.any():
        is_same = len(low) == last + 1 and torch.equal(low, torch.arange(len(low)).to(low))
        return values if is_same else values.index_select(dim, low)
    high = (low + 1).clamp(max=last)
    return torch.lerp(values.index_select(dim, low), values.index_select(dim, high), fraction)
