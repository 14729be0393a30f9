"""The windows over one volume: its padding, and where the outputs lie."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from voxplain.models.output_place import OutputPlace, at_box
from voxplain.models.tiles import Tiles

Padding = Literal["constant", "reflect", "replicate", "circular"]

_MODES: dict[Padding, Literal["reflect", "edge", "wrap", "constant"]] = {
    "constant": "constant",
    "reflect": "reflect",
    "replicate": "edge",
    "circular": "wrap",
}
"""The names of paddings in NumPy."""


@dataclass(frozen=True)
class Layout(Tiles):
    """The windows over one volume, whose grid are the voxels of the padded volume.

    Attributes:
        shape: Spatial shape of the volume.
        padding: What surrounds a volume that is smaller than a window.
        padding_value: The value of ``constant`` padding.
        outputs: The same windows on the cells of the outputs.
        window_place: Where the cells of an output lie in its window.
    """

    shape: tuple[int, ...]
    padding: Padding
    padding_value: float
    outputs: Tiles
    window_place: OutputPlace

    @property
    def padded(self) -> tuple[int, ...]:
        """Shape after padding each axis to at least one window, half on either side."""
        return self.grid

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
    def place(self) -> OutputPlace:
        """Where the outputs of the volume lie in it."""
        place = self.window_place
        axes = zip(place.start, place.stride, self._output_box, self.image_box, strict=True)
        starts = (start + step * own.start - box.start for start, step, own, box in axes)
        cells = (own.stop - own.start for own in self._output_box)
        return OutputPlace(tuple(starts), place.stride, tuple(cells), self.shape)

    @property
    def covered(self) -> tuple[slice, ...]:
        """The voxels of the volume for which there is an output, one slice per axis."""
        return self.place.covered

    @property
    def inside(self) -> Tensor:
        """1 at the voxels of the volume with an output, else 0; ``(*padded)`` in float64."""
        shown = torch.zeros(self.padded, dtype=torch.float64)
        self.unpad(shown)[self.covered] = 1
        return shown

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

    def pad(self, volume: Tensor) -> Tensor:
        """An image ``(..., *shape)`` as the network sees it, ``(..., *padded)``."""
        if not self.is_padded:
            return volume
        if self.padding == "constant":
            return _surrounded(volume, self.image_box, self.padded, self.padding_value)
        for dim, index in self._sources(volume):
            volume = volume.index_select(dim, index)
        return volume

    def example(self, volume: Tensor) -> Tensor:
        """The middle window of an image ``(C, *shape)``, ``(1, C, *size)``."""
        return self.cut(self.pad(volume), [self.positions[len(self) // 2]])

    def fold(self, gradient: Tensor) -> Tensor:
        """A gradient at a padded image as one at the image: copies of a voxel are summed."""
        if not self.is_padded or self.padding == "constant":
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
        """Values at the outputs of the volume as ``(..., *outputs.grid)``, with zeros around."""
        return _surrounded(values, self._output_box, self.outputs.grid)

    def crop(self, outputs: Tensor) -> Tensor:
        """``(..., *outputs.grid)`` at the outputs of the volume, ``(..., *place.cells)``."""
        return outputs[at_box(self._output_box)]

    @cached_property
    def _output_box(self) -> tuple[slice, ...]:
        """The outputs of the volume among those of the padded one; rounded as MONAI does."""
        place, found = self.window_place, []
        axes = zip(
            self.image_box, self.padded, self.outputs.grid, place.stride, place.margins, strict=True
        )
        for own, length, cells, stride, (lead, _) in axes:
            first, end = (round((voxel - lead) / stride) for voxel in (own.start, own.stop))
            is_whole = own.stop - own.start == length
            found.append(slice(0, cells) if is_whole else slice(max(first, 0), min(end, cells)))
        return tuple(found)

    def _sources(self, like: Tensor) -> Iterator[tuple[int, Tensor]]:
        """The number of each padded axis, and which voxel each place along it shows."""
        for dim in range(-len(self.shape), 0):
            own, length = self.image_box[dim], self.padded[dim]
            if length != self.shape[dim]:
                ends = (own.start, length - own.stop)
                source = np.pad(np.arange(self.shape[dim]), ends, mode=_MODES[self.padding])
                yield dim, torch.as_tensor(source, device=like.device)


def _surrounded(
    values: Tensor, box: tuple[slice, ...], shape: tuple[int, ...], outside: float = 0
) -> Tensor:
    """Values that lie in a box, ``(..., *shape)`` with another value around."""
    ends = [(side.start, length - side.stop) for side, length in zip(box, shape, strict=True)]
    if not any(map(any, ends)):
        return values
    sides = [count for pair in reversed(ends) for count in pair]
    return functional.pad(values, sides, value=outside)
