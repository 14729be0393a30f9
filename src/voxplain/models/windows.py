"""Sliding windows: how a volume is divided, and how outputs are blended.

Windows lie on a product grid, so blending weights and normalization are products of one vector per
axis, and no array of the size of the volume is stored for them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from types import EllipsisType
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional

from voxplain.errors import ConfigError
from voxplain.extents import Extent, PositiveExtent, require_bounded, resolve


class Window(BaseModel):
    """Sliding windows, for networks with an input size of their own.

    Attributes:
        size: Extent of a window.
        overlap: Share of a window without its halo that a neighbor covers too, in [0, 1).
        blend: Weights of overlapping outputs: ``gaussian`` around the center of the window (sigma
            1/8 of its side, as in MONAI), or ``constant``.
        halo: Margin of a window whose output is ignored, except at the border of the volume.
        batch: Windows per call of the network.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: PositiveExtent
    overlap: float = Field(default=0.5, ge=0, lt=1)
    blend: Literal["gaussian", "constant"] = "gaussian"
    halo: Extent = 0
    batch: int = Field(default=1, ge=1)

    def layout(self, shape: Sequence[int], spacing: Sequence[float] | None = None) -> Layout:
        """The windows over a volume.

        Args:
            shape: Spatial shape of the volume.
            spacing: Millimeters per voxel, for extents in mm.

        Raises:
            ConfigError: If a window has no voxel left inside its halo.
        """
        size = resolve(self.size, shape, spacing)
        require_bounded(size, "window.size")
        halo = resolve(self.halo, shape, spacing)
        if any(side <= 2 * margin for side, margin in zip(size, halo, strict=True)):
            raise ConfigError(f"a window of {size} voxels has nothing left inside a halo of {halo}")
        padded = tuple(max(*pair) for pair in zip(shape, size, strict=True))
        axes = tuple(
            _axis(length, side, margin, self.overlap, self.blend)
            for length, side, margin in zip(padded, size, halo, strict=True)
        )
        return Layout(tuple(shape), padded, size, axes)


@dataclass(frozen=True)
class _WindowAxis:
    """The windows along one axis.

    Attributes:
        starts: First voxel of each window.
        weights: Blending weights ``(windows, side)``, float64; they sum to 1 at every voxel.
    """

    starts: tuple[int, ...]
    weights: Tensor


def _axis(length: int, side: int, halo: int, overlap: float, blend: str) -> _WindowAxis:
    stride = max(1, int((side - 2 * halo) * (1 - overlap)))
    starts = (*range(0, length - side, stride), length - side)
    bell = torch.ones(side, dtype=torch.float64)
    if blend == "gaussian":
        offset = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
        bell = torch.exp(-0.5 * (offset / (side / 8)) ** 2).clamp_min(1e-3)
    weights = bell.repeat(len(starts), 1)
    for row, start in zip(weights, starts, strict=True):
        row[: halo if start > 0 else 0] = 0
        row[side - halo if start < length - side else side :] = 0
    total = torch.zeros(length, dtype=torch.float64)
    for row, start in zip(weights, starts, strict=True):
        total[start : start + side] += row
    for row, start in zip(weights, starts, strict=True):
        row /= total[start : start + side]
    return _WindowAxis(starts, weights)


@dataclass(frozen=True)
class Layout:
    """The windows over one volume.

    Attributes:
        shape: Spatial shape of the volume.
        padded: Shape after padding at the end of each axis to at least one window.
        size: Voxels of a window per axis.
        axes: The windows along each axis.
    """

    shape: tuple[int, ...]
    padded: tuple[int, ...]
    size: tuple[int, ...]
    axes: tuple[_WindowAxis, ...]

    @cached_property
    def positions(self) -> tuple[tuple[int, ...], ...]:
        """The position of every window: its number along each axis."""
        return tuple(itertools.product(*(range(len(axis.starts)) for axis in self.axes)))

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def redundancy(self) -> float:
        """Mean number of windows over a voxel."""
        return len(self) * math.prod(self.size) / math.prod(self.shape)

    @property
    def is_padded(self) -> bool:
        """Whether the window is larger than the volume along some axis."""
        return self.padded != self.shape

    def batches(self, size: int) -> Iterator[tuple[tuple[int, ...], ...]]:
        """The positions in batches of ``size``."""
        for first in range(0, len(self), size):
            yield self.positions[first : first + size]

    def region(self, position: tuple[int, ...]) -> tuple[EllipsisType | slice, ...]:
        """Index of a window in a padded volume ``(..., *padded)``."""
        return (..., *self.box(position))

    def box(self, position: tuple[int, ...]) -> tuple[slice, ...]:
        """The voxels of a window, one slice per axis."""
        starts = (axis.starts[index] for axis, index in zip(self.axes, position, strict=True))
        sides = zip(starts, self.size, strict=True)
        return tuple(slice(start, start + side) for start, side in sides)

    def weight(self, position: tuple[int, ...]) -> Tensor:
        """Blending weights of a window, ``(*size)`` in float64; all windows sum to 1 at a voxel."""
        vectors = [axis.weights[index] for axis, index in zip(self.axes, position, strict=True)]
        return reduce(lambda left, right: left[..., None] * right, vectors)

    def pad(self, volume: Tensor) -> Tensor:
        """``(..., *shape)`` as ``(..., *padded)``, with zeros at the end of each axis."""
        after = [large - small for small, large in zip(self.shape, self.padded, strict=True)]
        if not any(after):
            return volume
        return functional.pad(volume, [size for end in reversed(after) for size in (0, end)])

    def unpad(self, volume: Tensor) -> Tensor:
        """``(..., *padded)`` as ``(..., *shape)``, without the padding."""
        inside: tuple[EllipsisType | slice, ...] = (..., *(slice(0, end) for end in self.shape))
        return volume[inside]

    def cut(self, padded: Tensor, positions: Sequence[tuple[int, ...]]) -> Tensor:
        """Windows ``(n, C, *size)`` at these positions of a padded volume ``(C, *padded)``."""
        return torch.stack([padded[self.region(position)] for position in positions])

    def blend_weights(self, positions: Sequence[tuple[int, ...]], like: Tensor) -> Tensor:
        """Blending weights ``(n, 1, *size)`` with the type and device of ``like``."""
        stacked = torch.stack([self.weight(position) for position in positions])[:, None]
        return stacked.to(device=like.device, dtype=like.dtype)
