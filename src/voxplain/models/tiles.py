"""Windows on a grid: where each lies, and how much of it counts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import EllipsisType

import torch
from torch import Tensor

from voxplain.models.blending import Blending, WindowAxis
from voxplain.models.output_place import at_box


@dataclass(frozen=True)
class Tiles:
    """The windows over a grid: the voxels of a padded volume, or the cells of its outputs.

    Attributes:
        grid: Spatial shape of the grid.
        blending: The windows along each axis and their weights.
    """

    grid: tuple[int, ...]
    blending: Blending

    @property
    def size(self) -> tuple[int, ...]:
        """Voxels or cells of a window per axis."""
        return self.blending.size

    @property
    def axes(self) -> tuple[WindowAxis, ...]:
        """The windows along each axis."""
        return self.blending.axes

    @cached_property
    def positions(self) -> tuple[tuple[int, ...], ...]:
        """The position of every window: its number along each axis."""
        return tuple(itertools.product(*(range(len(axis.starts)) for axis in self.axes)))

    def __len__(self) -> int:
        return math.prod(len(axis.starts) for axis in self.axes)

    def batches(self, size: int) -> Iterator[tuple[tuple[int, ...], ...]]:
        """The positions in batches of ``size``."""
        for first in range(0, len(self), size):
            yield self.positions[first : first + size]

    def box(self, position: tuple[int, ...]) -> tuple[slice, ...]:
        """Where a window lies, one slice per axis."""
        starts = (axis.starts[index] for axis, index in zip(self.axes, position, strict=True))
        sides = zip(starts, self.size, strict=True)
        return tuple(slice(start, start + side) for start, side in sides)

    def region(self, position: tuple[int, ...]) -> tuple[EllipsisType | slice, ...]:
        """Index of a window in ``(..., *grid)``."""
        return at_box(self.box(position))

    def cut(self, values: Tensor, positions: Sequence[tuple[int, ...]]) -> Tensor:
        """Windows ``(n, C, *size)`` at these positions of values ``(C, *grid)``."""
        return torch.stack([values[self.region(position)] for position in positions])

    def weight(self, position: tuple[int, ...]) -> Tensor:
        """Blending weights of a window, ``(*size)`` in float64; all windows sum to 1 at a place."""
        return self.blending.weight(position)

    def blend_weights(self, positions: Sequence[tuple[int, ...]], like: Tensor) -> Tensor:
        """Blending weights ``(n, 1, *size)`` with the type and device of ``like``."""
        stacked = torch.stack([self.weight(position) for position in positions])[:, None]
        return stacked.to(device=like.device, dtype=like.dtype)
