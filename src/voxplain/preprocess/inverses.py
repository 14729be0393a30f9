"""Inverses of the spatial steps: of a reordering of axes, of a window, of a resampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from voxplain.image import Grid, Mode
from voxplain.preprocess.resample import along_axes, mass_weights, nearest, value_weights


@dataclass(frozen=True)
class AxesInverse:
    """The inverse of a permutation of the axes and the flips after it.

    Attributes:
        name: Kind of the step.
        grid: Grid before the step.
        order: Number of the old axis, for each new axis.
        flips: Whether each new axis is reversed.
    """

    name: str
    grid: Grid
    order: tuple[int, ...]
    flips: tuple[bool, ...]

    def __call__(self, values: Tensor, mode: Mode) -> Tensor:
        """``(C, *spatial)`` with its axes in the old order; no value changes."""
        old_order = [self.order.index(axis) for axis in range(len(self.order))]
        return permuted(flipped(values, self.flips), old_order)

    def forward(self, values: Tensor, mode: Mode = "label") -> Tensor:
        """``(..., *spatial)`` with its axes in the new order."""
        return flipped(permuted(values, self.order), self.flips)


@dataclass(frozen=True)
class WindowInverse:
    """The inverse of a crop, a padding, or both at once.

    Attributes:
        name: Kind of the step.
        grid: Grid before the step.
        start: First voxel of the window in the old grid; negative for padding.
        shape: Shape of the window, which is the grid after the step.
    """

    name: str
    grid: Grid
    start: tuple[int, ...]
    shape: tuple[int, ...]

    def __call__(self, values: Tensor, mode: Mode) -> Tensor:
        """``(C, *spatial)`` on the old grid, 0 outside the window; padding is dropped."""
        return windowed(values, [-first for first in self.start], self.grid.shape)

    def forward(self, values: Tensor, mode: Mode = "label") -> Tensor:
        """The window of ``(..., *spatial)``, padded with 0."""
        return windowed(values, self.start, self.shape)


@dataclass(frozen=True)
class ResampleInverse:
    """The inverse of a resampling along the axes.

    Attributes:
        name: Kind of the step.
        grid: Grid before the step.
        shape: Shape after the step.
        start: Position of the first new voxel in old voxels, per axis.
        step: Old voxels per new voxel, per axis.
    """

    name: str
    grid: Grid
    shape: tuple[int, ...]
    start: tuple[float, ...]
    step: tuple[float, ...]

    def __call__(self, values: Tensor, mode: Mode) -> Tensor:
        """``(C, *spatial)`` on the old grid.

        ``value`` interpolates linearly, ``mass`` also keeps the sum, ``label`` takes the nearest
        value.
        """
        start = [-first / step for first, step in zip(self.start, self.step, strict=True)]
        step = [1 / step for step in self.step]
        return _resampled(values, self.shape, self.grid.shape, start, step, mode)

    def forward(self, values: Tensor, mode: Mode = "label") -> Tensor:
        """``(..., *spatial)`` on the new grid, labels by the nearest voxel."""
        return _resampled(values, self.grid.shape, self.shape, self.start, self.step, mode)


def _resampled(
    values: Tensor,
    source: Sequence[int],
    target: Sequence[int],
    start: Sequence[float],
    step: Sequence[float],
    mode: Mode,
) -> Tensor:
    if mode == "label":
        return nearest(values, target, start, step)
    weights = mass_weights if mode == "mass" else value_weights
    axes = zip(source, target, start, step, strict=True)
    return along_axes(values, [None if unchanged(*axis) else weights(*axis) for axis in axes])


def permuted(data: Tensor, order: Sequence[int]) -> Tensor:
    """``(..., *spatial)`` with its spatial axes in this order."""
    lead = data.ndim - len(order)
    return data.permute(*range(lead), *(lead + axis for axis in order))


def flipped(data: Tensor, flips: Sequence[bool]) -> Tensor:
    """``(..., *spatial)`` with the marked spatial axes reversed."""
    lead = data.ndim - len(flips)
    return data.flip([lead + axis for axis, flip in enumerate(flips) if flip])


def windowed(
    data: Tensor, start: Sequence[int], shape: Sequence[int], value: Tensor | float = 0.0
) -> Tensor:
    """A window of the data, filled with a value where it reaches beyond them.

    Args:
        data: ``(..., *spatial)`` of any dtype.
        start: First voxel of the window per spatial axis, which may be negative.
        shape: Shape of the window.
        value: A number, or a tensor that broadcasts against the window.
    """
    lead = tuple(data.shape[: data.ndim - len(shape)])
    result = torch.empty((*lead, *shape), dtype=data.dtype, device=data.device)
    result[...] = value
    source, target = [...], [...]
    for first, size, length in zip(start, shape, data.shape[len(lead) :], strict=True):
        begin = max(first, 0)
        end = max(min(first + size, length), begin)
        source.append(slice(begin, end))  # type: ignore[arg-type]
        target.append(slice(begin - first, end - first))  # type: ignore[arg-type]
    result[tuple(target)] = data[tuple(source)]
    return result


def unchanged(source: int, target: int, start: float, step: float) -> bool:
    """Whether resampling an axis would change nothing."""
    return source == target and abs(start) < 1e-9 and abs(step - 1) < 1e-9
