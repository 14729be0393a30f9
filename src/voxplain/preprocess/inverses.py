"""The ways back of the spatial steps: axes put in another order, a window, a resampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from voxplain.image import Grid, Mode
from voxplain.preprocess.resample import along_axes, mass_weights, nearest, value_weights


@dataclass(frozen=True)
class AxesInverse:
    """Undoes a permutation of the axes and the flips that followed it.

    Attributes:
        name: Kind of the step.
        grid: Grid before the step.
        order: The old axis that each new axis is.
        flips: Whether each new axis runs backward.
    """

    name: str
    grid: Grid
    order: tuple[int, ...]
    flips: tuple[bool, ...]

    def __call__(self, map: Tensor, mode: Mode) -> Tensor:
        """Puts the axes of ``(C, *spatial)`` back; no value changes."""
        back = [self.order.index(axis) for axis in range(len(self.order))]
        return permuted(flipped(map, self.flips), back)

    def forward(self, values: Tensor, mode: Mode = "label") -> Tensor:
        """Orders the axes of ``(..., *spatial)`` as the step did."""
        return flipped(permuted(values, self.order), self.flips)


@dataclass(frozen=True)
class WindowInverse:
    """Undoes a crop, a padding, or both at once.

    Attributes:
        name: Kind of the step.
        grid: Grid before the step.
        start: Where the window begins in the old grid; negative where it pads.
        shape: Shape of the window, the grid after the step.
    """

    name: str
    grid: Grid
    start: tuple[int, ...]
    shape: tuple[int, ...]

    def __call__(self, map: Tensor, mode: Mode) -> Tensor:
        """Lays ``(C, *spatial)`` back into zeros of the old shape; padding is dropped."""
        return windowed(map, [-first for first in self.start], self.grid.shape)

    def forward(self, values: Tensor, mode: Mode = "label") -> Tensor:
        """Cuts the window out of ``(..., *spatial)``, with 0 where it pads."""
        return windowed(values, self.start, self.shape)


@dataclass(frozen=True)
class ResampleInverse:
    """Undoes a resampling along the axes.

    Attributes:
        name: Kind of the step.
        grid: Grid before the step.
        shape: Shape after the step.
        start: Old index of the first new voxel, per axis.
        step: Old voxels per new voxel, per axis.
    """

    name: str
    grid: Grid
    shape: tuple[int, ...]
    start: tuple[float, ...]
    step: tuple[float, ...]

    def __call__(self, map: Tensor, mode: Mode) -> Tensor:
        """Brings ``(C, *spatial)`` to the old grid.

        ``value`` interpolates linearly, ``mass`` does so and keeps the total, ``label`` takes the
        nearest.
        """
        start = [-first / pace for first, pace in zip(self.start, self.step, strict=True)]
        step = [1 / pace for pace in self.step]
        return _resampled(map, self.shape, self.grid.shape, start, step, mode)

    def forward(self, values: Tensor, mode: Mode = "label") -> Tensor:
        """Brings ``(..., *spatial)`` to the new grid, labels by the nearest voxel."""
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
    """``(..., *spatial)`` with its spatial axes in another order."""
    lead = data.ndim - len(order)
    return data.permute(*range(lead), *(lead + axis for axis in order))


def flipped(data: Tensor, flips: Sequence[bool]) -> Tensor:
    """``(..., *spatial)`` with the marked spatial axes reversed."""
    lead = data.ndim - len(flips)
    return data.flip([lead + axis for axis, flip in enumerate(flips) if flip])


def windowed(
    data: Tensor, start: Sequence[int], shape: Sequence[int], value: Tensor | float = 0.0
) -> Tensor:
    """The window of ``(..., *spatial)`` from ``start``, filled with ``value`` outside the data.

    Args:
        data: Any dtype.
        start: First index per spatial axis; negative where the window begins before the data.
        shape: Shape of the window.
        value: A number, or a tensor that broadcasts against the window.
    """
    lead = tuple(data.shape[: data.ndim - len(shape)])
    result = torch.empty((*lead, *shape), dtype=data.dtype, device=data.device)
    result[...] = value
    source, target = [...], [...]
    for first, size, have in zip(start, shape, data.shape[len(lead) :], strict=True):
        begin, end = max(first, 0), max(min(first + size, have), max(first, 0))
        source.append(slice(begin, end))  # type: ignore[arg-type]
        target.append(slice(begin - first, end - first))  # type: ignore[arg-type]
    result[tuple(target)] = data[tuple(source)]
    return result


def unchanged(source: int, target: int, start: float, step: float) -> bool:
    """Whether resampling would leave an axis as it is."""
    return source == target and abs(start) < 1e-9 and abs(step - 1) < 1e-9
