"""Sliding windows: how a volume is divided, and how outputs are blended."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from types import EllipsisType
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional

from voxplain.errors import ConfigError, ModelError
from voxplain.extents import Extent, PositiveExtent, require_bounded, resolve
from voxplain.models.blending import Blend, Blending, WindowAxis
from voxplain.models.output_place import at_box

Padding = Literal["constant", "reflect", "replicate", "circular"]
Margins = tuple[tuple[int, int], ...]
"""Voxels of a window before and behind what its output covers, per axis."""

_MODES: dict[Padding, Literal["reflect", "edge", "wrap", "constant"]] = {
    "constant": "constant",
    "reflect": "reflect",
    "replicate": "edge",
    "circular": "wrap",
}
"""The names of paddings in NumPy."""


class Window(BaseModel):
    """Sliding windows, for networks with an input size of their own.

    With the defaults outputs are those of MONAI's ``sliding_window_inference``.

    Attributes:
        size: Extent of a window.
        overlap: Share of a window without its halo that a neighbor covers too, in [0, 1).
        blend: Weights of overlapping outputs: ``gaussian`` around the center of the window (sigma
            1/8 of its side, at least 1e-3 of its maximum, as in MONAI), ``constant``, or
            ``nnunet`` for the weights of nnU-Net and its windows at equal distances (without its
            mirroring).
        halo: Margin of a window whose output is ignored, except at the border of the volume.
        batch: Windows per call of the network.
        padding: What surrounds a volume that is smaller than a window, half on either side:
            ``constant`` for zeros, or its own values: ``reflect``, ``replicate``, ``circular``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: PositiveExtent
    overlap: float = Field(default=0.5, ge=0, lt=1)
    blend: Blend = "gaussian"
    halo: Extent = 0
    batch: int = Field(default=1, ge=1)
    padding: Padding = "constant"

    def layout(
        self,
        shape: Sequence[int],
        spacing: Sequence[float] | None = None,
        margins: Margins | None = None,
    ) -> Layout:
        """The windows over a volume.

        Args:
            shape: Spatial shape of the volume.
            spacing: Millimeters per voxel, for extents in mm.
            margins: Of networks whose output is smaller than their input by valid convolutions.

        Raises:
            ConfigError: If a window has no voxel left inside its halo.
            ModelError: If no output lies inside the volume.
        """
        return _layout(self, tuple(shape), None if spacing is None else tuple(spacing), margins)


@lru_cache(maxsize=4)
def _layout(
    window: Window,
    shape: tuple[int, ...],
    spacing: tuple[float, ...] | None,
    margins: Margins | None,
) -> Layout:
    size = resolve(window.size, shape, spacing)
    require_bounded(size, "window.size")
    halo = resolve(window.halo, shape, spacing)
    margins = margins or ((0, 0),) * len(shape)
    ignored = tuple(
        (max(margin, first), max(margin, last))
        for margin, (first, last) in zip(halo, margins, strict=True)
    )
    if any(side <= sum(ends) for side, ends in zip(size, ignored, strict=True)):
        inside = f"a halo of {halo}" if any(halo) else "what its output does not cover"
        raise ConfigError(f"a window of {size} voxels has nothing left inside {inside}")
    padded = tuple(max(*pair) for pair in zip(shape, size, strict=True))
    axes = tuple(
        _axis(length, side, inner, margin, window)
        for length, side, inner, margin in zip(padded, size, ignored, margins, strict=True)
    )
    layout = Layout(shape, padded, size, margins, Blending(window.blend, size, axes), window)
    if any(side.start >= side.stop for side in layout.covered):
        raise ModelError(f"windows of {size} voxels have no output inside a volume of {shape}")
    return layout


def _axis(
    length: int, side: int, ignored: tuple[int, int], margin: tuple[int, int], window: Window
) -> WindowAxis:
    """The windows along an axis; at its ends, outputs are used up to the margin."""
    step = (side - sum(ignored)) * (1 - window.overlap)
    starts = _even_starts if window.blend == "nnunet" else _regular_starts
    found = starts(length - side, step)
    used = [
        (
            ignored[0] if start > 0 else margin[0],
            side - (ignored[1] if start < length - side else margin[1]),
        )
        for start in found
    ]
    return WindowAxis.of(found, used, length, side)


def _regular_starts(last: int, step: float) -> tuple[int, ...]:
    """Every ``step`` voxels, rounded down, and the last possible one, as in MONAI."""
    return (*range(0, last, max(1, int(step))), last)


def _even_starts(last: int, step: float) -> tuple[int, ...]:
    """At equal distances of at most ``step`` voxels, as in nnU-Net."""
    count = math.ceil(last / step)
    starts = (round(last / count * index) for index in range(count + 1)) if count else (0,)
    return tuple(dict.fromkeys(starts))


@dataclass(frozen=True)
class Layout:
    """The windows over one volume.

    Attributes:
        shape: Spatial shape of the volume.
        padded: Shape after padding each axis to at least one window, half on either side.
        size: Voxels of a window per axis.
        margins: Voxels of a window before and behind what its output covers, per axis.
        blending: The windows along each axis and their weights.
        window: What was asked for.
    """

    shape: tuple[int, ...]
    padded: tuple[int, ...]
    size: tuple[int, ...]
    margins: Margins
    blending: Blending
    window: Window

    @property
    def axes(self) -> tuple[WindowAxis, ...]:
        """The windows along each axis of the padded volume."""
        return self.blending.axes

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

    @cached_property
    def image_box(self) -> tuple[slice, ...]:
        """Where the volume lies in the padded one, one slice per axis."""
        halves = [
            (large - small) // 2 for small, large in zip(self.shape, self.padded, strict=True)
        ]
        return tuple(
            slice(half, half + side) for half, side in zip(halves, self.shape, strict=True)
        )

    @cached_property
    def covered(self) -> tuple[slice, ...]:
        """The voxels of the volume for which there is an output, one slice per axis."""
        boxes = zip(self.image_box, self.padded, self.margins, strict=True)
        return tuple(
            slice(max(first - box.start, 0), min(length - last, box.stop) - box.start)
            for box, length, (first, last) in boxes
        )

    def batches(self, size: int) -> Iterator[tuple[tuple[int, ...], ...]]:
        """The positions in batches of ``size``."""
        for first in range(0, len(self), size):
            yield self.positions[first : first + size]

    def region(self, position: tuple[int, ...]) -> tuple[EllipsisType | slice, ...]:
        """Index of a window in a padded volume ``(..., *padded)``."""
        return at_box(self.box(position))

    def box(self, position: tuple[int, ...]) -> tuple[slice, ...]:
        """The voxels of the padded volume in a window, one slice per axis."""
        starts = (axis.starts[index] for axis, index in zip(self.axes, position, strict=True))
        sides = zip(starts, self.size, strict=True)
        return tuple(slice(start, start + side) for start, side in sides)

    def over(self, box: Sequence[slice]) -> Iterator[tuple[int, ...]]:
        """The positions of the windows that contain a voxel of a box of the volume.

        Along a padded axis there is one window, which contains every copy of a voxel too.
        """
        overlapping = []
        for axis, size, side, own in zip(self.axes, self.size, box, self.image_box, strict=True):
            first, end = side.start + own.start, side.stop + own.start
            reaches = [
                first < end and start < end and start + size > first for start in axis.starts
            ]
            overlapping.append([number for number, reached in enumerate(reaches) if reached])
        return itertools.product(*overlapping)

    def weight(self, position: tuple[int, ...]) -> Tensor:
        """Blending weights of a window, ``(*size)`` in float64; all windows sum to 1 at a voxel."""
        return self.blending.weight(position)

    def pad(self, volume: Tensor) -> Tensor:
        """An image ``(..., *shape)`` as the network sees it, ``(..., *padded)``."""
        if not self.is_padded:
            return volume
        if self.window.padding == "constant":
            return self._with_zeros(volume, self.image_box)
        for dim, index in self._sources(volume):
            volume = volume.index_select(dim, index)
        return volume

    def fold(self, gradient: Tensor) -> Tensor:
        """A gradient at a padded image as one at the image: copies of a voxel are summed."""
        if not self.is_padded or self.window.padding == "constant":
            return self.unpad(gradient)
        for dim, index in self._sources(gradient):
            shape = [*gradient.shape]
            shape[dim] = self.shape[dim]
            gradient = gradient.new_zeros(shape).index_add_(dim, index, gradient)
        return gradient

    def unpad(self, volume: Tensor) -> Tensor:
        """``(..., *padded)`` as ``(..., *shape)``, without the padding."""
        return volume[at_box(self.image_box)]

    def embed(self, values: Tensor) -> Tensor:
        """Values at the outputs ``(..., *covered)`` as ``(..., *padded)``, with zeros around."""
        return self._with_zeros(values, self._output_box)

    def crop(self, volume: Tensor) -> Tensor:
        """``(..., *padded)`` at the outputs, ``(..., *covered)``."""
        return volume[at_box(self._output_box)]

    @cached_property
    def _output_box(self) -> tuple[slice, ...]:
        """Where the outputs of the volume lie in the padded one."""
        pairs = zip(self.image_box, self.covered, strict=True)
        return tuple(slice(own.start + side.start, own.start + side.stop) for own, side in pairs)

    def _with_zeros(self, values: Tensor, box: tuple[slice, ...]) -> Tensor:
        ends = [
            (side.start, length - side.stop) for side, length in zip(box, self.padded, strict=True)
        ]
        if not any(map(any, ends)):
            return values
        return functional.pad(values, [count for pair in reversed(ends) for count in pair])

    def _sources(self, like: Tensor) -> Iterator[tuple[int, Tensor]]:
        """The number of each padded axis, and which voxel each place along it shows."""
        for dim in range(-len(self.shape), 0):
            own, length = self.image_box[dim], self.padded[dim]
            if length != self.shape[dim]:
                ends = (own.start, length - own.stop)
                source = np.pad(np.arange(self.shape[dim]), ends, mode=_MODES[self.window.padding])
                yield dim, torch.as_tensor(source, device=like.device)

    def cut(self, padded: Tensor, positions: Sequence[tuple[int, ...]]) -> Tensor:
        """Windows ``(n, C, *size)`` at these positions of a padded volume ``(C, *padded)``."""
        return torch.stack([padded[self.region(position)] for position in positions])

    def blend_weights(self, positions: Sequence[tuple[int, ...]], like: Tensor) -> Tensor:
        """Blending weights ``(n, 1, *size)`` with the type and device of ``like``."""
        stacked = torch.stack([self.weight(position) for position in positions])[:, None]
        return stacked.to(device=like.device, dtype=like.dtype)
