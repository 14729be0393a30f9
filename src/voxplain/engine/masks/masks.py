"""Masks of one image in compact form, and the painters that write masked images into a buffer."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import EllipsisType
from typing import ClassVar

import torch
from torch import Tensor

from voxplain.engine.taps import Changes
from voxplain.models.layout import Layout

Region = tuple[slice, ...]
"""A box of voxels, one slice per spatial axis."""
Position = tuple[int, ...]
"""Position of a window: one index per axis."""


def inside(box: Region) -> tuple[EllipsisType | slice, ...]:
    """The index of a box in ``(..., *spatial)``."""
    return (..., *box)


class Masks(ABC):
    """The masks of one image: 1 keeps a voxel, 0 removes it.

    Attributes:
        shape: Spatial shape of the image.
        at_layer: Whether the masks are on a layer, and leave the image unchanged.
        remark: A sentence for readers of the map, or None.
    """

    at_layer: ClassVar[bool] = False
    remark: str | None = None

    shape: tuple[int, ...]

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def extent(self) -> tuple[float, ...]:
        """Typical extent of the removed voxels of one mask, in voxels per axis, for blur fills."""

    @abstractmethod
    def painter(self, image: Tensor, filled: Tensor) -> Painter:
        """A painter of the masked images.

        Args:
            image: ``(C, *spatial)``.
            filled: Values of removed voxels, of the same shape.
        """

    @abstractmethod
    def removed(self, index: int) -> Tensor:
        """The voxels that a mask removes, ``(*spatial)`` bool."""

    def weights(self, index: int, like: Tensor) -> Tensor:
        """The weight of the image at each voxel, ``(*spatial)`` or ``(C, *spatial)`` in [0, 1].

        Args:
            index: Number of the mask.
            like: Gives type and device.
        """
        return 1 - self.removed(index).to(like)

    def box(self, index: int) -> Region:
        """A box outside of which a mask changes nothing; by default the whole image."""
        return tuple(slice(0, side) for side in self.shape)

    def changes(self, indices: Sequence[int]) -> Changes | None:
        """Changes of a layer for a batch with one mask per row; None for masks on the image."""
        return None

    def touched(self, index: int, layout: Layout) -> Iterator[Position]:
        """The windows that contain a voxel which the mask removes."""
        return layout.over(self.box(index))


class Painter(ABC):
    """Writes masked images into the rows of one buffer, changing only the voxels that differ.

    Args:
        image: ``(C, *spatial)``.
        filled: Values of removed voxels, of the same shape.
    """

    def __init__(self, image: Tensor, filled: Tensor) -> None:
        self.image, self.filled = image.contiguous(), filled.expand_as(image).contiguous()
        self._rows = image.new_empty(0, *image.shape)
        self._version = 0

    @abstractmethod
    def identities(self) -> Sequence[object]:
        """A key per mask: equal keys mean equal masked images, None means the image itself."""

    @abstractmethod
    def paint(self, row: int, canvas: Tensor, index: int) -> None:
        """Writes the image under a mask into ``canvas`` ``(C, *spatial)``, row number ``row``."""

    @abstractmethod
    def reset(self, rows: int) -> None:
        """Called when a buffer of so many rows holds copies of the unmasked image."""

    def painted(self, indices: Sequence[int]) -> Tensor:
        """Images under some masks, ``(len(indices), C, *spatial)``, valid until the next call."""
        if len(indices) > len(self._rows) or self._rows._version != self._version:
            # The buffer is too small, or the network wrote into it.
            self._rows = self.image.expand(len(indices), *self.image.shape).clone()
            self.reset(len(indices))
        for row, index in enumerate(indices):
            self.paint(row, self._rows[row], index)
        self._version = self._rows._version
        return self._rows[: len(indices)]


@dataclass(frozen=True, eq=False)
class Boxes(Masks):
    """Axis-aligned boxes, each removed alone.

    Attributes:
        boxes: One slice per axis for every box.
        shape: Spatial shape of the image.
        size: Of a box that is not cropped, in voxels per axis.
    """

    boxes: tuple[Region, ...]
    shape: tuple[int, ...]
    size: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.boxes)

    def extent(self) -> tuple[float, ...]:
        return self.size

    def painter(self, image: Tensor, filled: Tensor) -> Painter:
        return _BoxPainter(self, image, filled)

    def removed(self, index: int) -> Tensor:
        removed = torch.zeros(self.shape, dtype=torch.bool)
        removed[self.boxes[index]] = True
        return removed

    def box(self, index: int) -> Region:
        return self.boxes[index]

    def summed(self, values: Tensor) -> Tensor:
        """Per voxel the sum of the values ``(n,)`` of the boxes that cover it, ``(*spatial)``.

        Values are added at the corners of their boxes and then summed cumulatively along each axis.
        """
        corners = torch.zeros(tuple(side + 1 for side in self.shape), dtype=torch.float64)
        rank = len(self.shape)
        places = torch.tensor(
            [[(side.start, side.stop) for side in box] for box in self.boxes]
        ).view(len(self.boxes), rank, 2)
        for ends in itertools.product((0, 1), repeat=rank):
            corner = tuple(places[:, axis, end] for axis, end in enumerate(ends))
            corners.index_put_(corner, values.double() * (-1) ** sum(ends), accumulate=True)
        for axis in range(rank):
            corners = corners.cumsum(axis)
        return corners[tuple(slice(0, side) for side in self.shape)]

    @cached_property
    def coverage(self) -> Tensor:
        """Number of boxes that cover each voxel, ``(*spatial)``."""
        return self.summed(torch.ones(len(self), dtype=torch.float64)).round()


class _BoxPainter(Painter):
    """Restores the box that a row held last, and fills the next one."""

    def __init__(self, masks: Boxes, image: Tensor, filled: Tensor) -> None:
        super().__init__(image, filled)
        self._boxes = masks.boxes
        self._last: list[Region | None] = []

    def identities(self) -> Sequence[object]:
        """One key per box; None for boxes in which the fill equals the image."""
        return [None if self._is_unchanged(box) else n for n, box in enumerate(self._boxes)]

    def _is_unchanged(self, box: Region) -> bool:
        return torch.equal(self.image[inside(box)], self.filled[inside(box)])

    def paint(self, row: int, canvas: Tensor, index: int) -> None:
        last, box = self._last[row], self._boxes[index]
        if last is not None:
            canvas[inside(last)] = self.image[inside(last)]
        canvas[inside(box)] = self.filled[inside(box)]
        self._last[row] = box

    def reset(self, rows: int) -> None:
        self._last = [None] * rows
