"""Linear and nearest resampling along the axes of a grid, by one matrix per axis."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def value_weights(
    source: int, target: int, start: float, step: float, antialias: bool = True
) -> Tensor:
    """The matrix that resamples values along one axis and keeps linear ramps.

    Target cell ``i`` lies at source index ``start + step * i``. Toward a coarser grid, the linear
    interpolation is averaged over ``sqrt(step**2 - 1)`` source cells against aliasing, which gives
    target cells the blur of their size; without ``antialias`` it is sampled at the target centers.
    Beyond the ends the last value is repeated.

    Returns:
        ``(target, source)``, float64, rows sum to 1.
    """
    width = math.sqrt(max(step**2 - 1, 0.0)) if antialias else 0.0
    return _averaged_linear(source, target, start, step, width)


def mass_weights(source: int, target: int, start: float, step: float) -> Tensor:
    """The matrix that resamples a density along one axis and keeps its sum.

    Each target cell gets the integral of the linearly interpolated density over that cell, so that
    constants and ramps stay such, times the ratio of the cell sizes (conservative remapping of
    second order; the adjoint of an anti-aliased resampling would ripple by up to 9 %).

    Returns:
        ``(target, source)``, float64, columns sum to 1.
    """
    weights = _averaged_linear(source, target, start, step, step)
    return weights / weights.sum(dim=0)


def triangle_weights(source: int, target: int, step: float, antialias: bool) -> Tensor:
    """The matrix of ``torch.nn.functional.interpolate(mode="linear", align_corners=False)``.

    Pillow and torchvision resize like this with ``antialias``, MONAI without.

    Returns:
        ``(target, source)``, float64, rows sum to 1.
    """
    if not antialias:
        return _averaged_linear(source, target, (step - 1) / 2, step, 0.0)
    centers = (step - 1) / 2 + step * torch.arange(target, dtype=torch.float64)
    distance = (centers[:, None] - torch.arange(source, dtype=torch.float64)).abs()
    triangle = (1 - distance / max(step, 1.0)).clamp_min(0)
    return triangle / triangle.sum(dim=1, keepdim=True)


def along_axes(data: Tensor, matrices: Sequence[Tensor | None]) -> Tensor:
    """Applies one matrix ``(target, source)`` per spatial axis to ``(..., *source)``.

    Args:
        data: Floating point; leading axes are kept.
        matrices: One per spatial axis; None leaves that axis unchanged.
    """
    for axis, matrix in enumerate(matrices, start=data.ndim - len(matrices)):
        if matrix is not None:
            axis_last = data.movedim(axis, -1) @ matrix.T.to(data)
            data = axis_last.movedim(-1, axis)
    return data.contiguous()


def nearest(
    data: Tensor, shape: Sequence[int], start: Sequence[float], step: Sequence[float]
) -> Tensor:
    """The values of the nearest cells: ``(..., *source)`` as ``(..., *shape)``.

    Args:
        data: Of any dtype.
        shape: Number of target cells per axis.
        start: Source index of the first target cell, per axis.
        step: Source cells per target cell, per axis.
    """
    lead = data.ndim - len(shape)
    for axis, (size, first, width) in enumerate(zip(shape, start, step, strict=True), start=lead):
        positions = first + width * torch.arange(size, dtype=torch.float64, device=data.device)
        # Ties are rounded up on every platform; rounding to even would repeat and skip cells.
        index = torch.floor(positions + 0.5).long().clamp(0, data.shape[axis] - 1)
        data = data.index_select(axis, index)
    return data


def _averaged_linear(source: int, target: int, start: float, step: float, width: float) -> Tensor:
    """Linear interpolation, averaged over ``width`` source cells around each target center."""
    reach = math.ceil(
        1 + width / 2 + max(abs(start), abs(start + step * (target - 1) - source + 1))
    )
    centers = start + step * torch.arange(target, dtype=torch.float64)
    cells = torch.arange(-reach, source + reach, dtype=torch.float64)
    distance = centers[:, None] - cells
    if width < 1e-6:
        weights = (1 - distance.abs()).clamp_min(0)
    else:
        weights = (_area(distance + width / 2) - _area(distance - width / 2)) / width
    # Cells beyond the ends repeat the first and the last one.
    inside = weights[:, reach : reach + source].clone()
    inside[:, 0] += weights[:, :reach].sum(dim=1)
    inside[:, -1] += weights[:, reach + source :].sum(dim=1)
    return inside


def _area(end: Tensor) -> Tensor:
    """Area of the triangle of height 1 over [-1, 1], from -1 to ``end``."""
    end = end.clamp(-1, 1)
    return torch.where(end < 0, (1 + end).square() / 2, 1 - (1 - end).square() / 2)
