"""Linear and nearest resampling along the axes of a grid, as small matrices, one per axis."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def weights(source: int, target: int, start: float, step: float, antialias: bool) -> Tensor:
    """The matrix that resamples one axis linearly.

    Target cell ``i`` lies at source index ``start + step * i``. Where the target is coarser and
    ``antialias`` holds, the triangle is as wide as the target's cell. Beyond the edge the edge
    value goes on. Rows sum to 1 and, away from the edge, reproduce a linear ramp.

    The transpose spreads what a target cell holds over the source cells that it was made of: the
    sum is kept exactly, and inside it is linear interpolation times the ratio of the cell sizes.

    Returns:
        ``(target, source)``, float64.
    """
    centers = start + step * torch.arange(target, dtype=torch.float64)
    edge = centers.clamp(0, source - 1)
    # Less than a cell outside, the triangle still reaches the grid and keeps its shape.
    centers = torch.where((centers - edge).abs() < 1, centers, edge)
    width = max(step, 1.0) if antialias else 1.0
    distance = (centers[:, None] - torch.arange(source, dtype=torch.float64)).abs()
    triangle = (1 - distance / width).clamp_min(0)
    return triangle / triangle.sum(dim=1, keepdim=True)


def along_axes(data: Tensor, matrices: Sequence[Tensor | None]) -> Tensor:
    """Applies one matrix ``(target, source)`` per spatial axis to ``(..., *source)``.

    Args:
        data: Floating point; leading axes are kept.
        matrices: One per spatial axis; None leaves that axis alone.
    """
    for axis, matrix in enumerate(matrices, start=data.ndim - len(matrices)):
        if matrix is not None:
            moved = data.movedim(axis, -1) @ matrix.T.to(data)
            data = moved.movedim(-1, axis)
    return data.contiguous()


def nearest(
    data: Tensor, shape: Sequence[int], start: Sequence[float], step: Sequence[float]
) -> Tensor:
    """Takes the value of the nearest cell: ``(..., *source)`` to ``(..., *shape)``."""
    first = data.ndim - len(shape)
    for axis, (size, origin, pace) in enumerate(zip(shape, start, step, strict=True), start=first):
        at = origin + pace * torch.arange(size, dtype=torch.float64, device=data.device)
        # Ties go up, on every platform; rounding to even would repeat and skip cells in turn.
        index = torch.floor(at + 0.5).long().clamp(0, data.shape[axis] - 1)
        data = data.index_select(axis, index)
    return data
