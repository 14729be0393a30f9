"""Boxes of equal size, one per image of a batch, and the receptive fields of operators."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class BoxSet:
    """A box per image; all have the same size, so that their contents form a batch.

    Attributes:
        starts: First cell per image and spatial axis, ``(k, rank)``; may lie outside the grid.
        size: Cells per spatial axis.
    """

    starts: Integers
    size: tuple[int, ...]

    @classmethod
    def around(cls, lows: Integers, highs: Integers, shape: Sequence[int]) -> BoxSet:
        """The smallest boxes of equal size inside a grid that cover ``[low, high)`` per image."""
        grid = np.asarray(shape, dtype=np.int64)
        size = np.clip((highs - lows).max(axis=0), 1, grid)
        return cls(np.clip(lows, 0, grid - size), tuple(int(cells) for cells in size))

    @classmethod
    def covering(cls, box_sets: Sequence[BoxSet], shape: Sequence[int]) -> BoxSet:
        """Boxes that cover those of several tensors on the same grid."""
        if all(boxes.same(box_sets[0]) for boxes in box_sets):
            return box_sets[0]
        lows = np.minimum.reduce([boxes.starts for boxes in box_sets])
        highs = np.maximum.reduce([boxes.ends for boxes in box_sets])
        return cls.around(lows, highs, shape)

    @property
    def ends(self) -> Integers:
        """The cell after the last one, ``(k, rank)``."""
        ends: Integers = self.starts + np.asarray(self.size, dtype=np.int64)
        return ends

    def same(self, other: BoxSet) -> bool:
        """Whether both sets hold the same cells."""
        return self.size == other.size and bool((self.starts == other.starts).all())

    def inside(self, shape: Sequence[int]) -> bool:
        """Whether all boxes lie inside the grid."""
        grid = np.asarray(shape, dtype=np.int64)
        return bool((self.starts >= 0).all() and (self.ends <= grid).all())

    def fraction(self, shape: Sequence[int]) -> float:
        """Fraction of a grid that one box covers."""
        return math.prod(self.size) / max(1, math.prod(shape))

    def indices(self) -> Iterator[Any]:
        """Per image, the index of its box in ``(k, C, *spatial)``; for boxes inside the grid."""
        for image, start in enumerate(self.starts.tolist()):
            box = (slice(low, low + n) for low, n in zip(start, self.size, strict=True))
            yield (image, slice(None), *box)


def crop(source: Tensor, boxes: BoxSet, fill: float = 0.0) -> Tensor:
    """The content of several boxes of one tensor.

    Args:
        source: ``(1, C, *spatial)``.
        boxes: May reach outside the grid.
        fill: Value outside the grid.

    Returns:
        ``(k, C, *size)``.
    """
    content = allocate(source, boxes, source.shape[2:], fill)
    grid = BoxSet(np.zeros_like(boxes.starts), tuple(source.shape[2:]))
    _write(content, boxes, source.expand(len(content), *source.shape[1:]), grid)
    return content


def overlay(content: Tensor, boxes: BoxSet, patch: Tensor, inner: BoxSet) -> Tensor:
    """Writes the content of inner boxes over that of other boxes, in place."""
    _write(content, boxes, patch, inner)
    return content


def covers(inner: BoxSet, outer: BoxSet, shape: Sequence[int]) -> bool:
    """Whether the inner boxes hold every cell of the grid that lies in the outer ones."""
    grid = np.asarray(shape, dtype=np.int64)
    lows, highs = np.maximum(outer.starts, 0), np.minimum(outer.ends, grid)
    return bool(((inner.starts <= lows) & (inner.ends >= highs)).all())


def allocate(like: Tensor, boxes: BoxSet, shape: Sequence[int], fill: float) -> Tensor:
    """An uninitialized tensor for the content of boxes, with the fill outside the grid."""
    size = (len(boxes.starts), like.shape[1], *boxes.size)
    return like.new_empty(size) if boxes.inside(shape) else like.new_full(size, fill)


def _write(content: Tensor, outer: BoxSet, patch: Tensor, inner: BoxSet) -> None:
    lows = np.maximum(outer.starts, inner.starts)
    highs = np.minimum(outer.ends, inner.ends)
    targets = zip((lows - outer.starts).tolist(), (highs - outer.starts).tolist(), strict=True)
    sources = zip((lows - inner.starts).tolist(), (highs - inner.starts).tolist(), strict=True)
    for image, (target, source) in enumerate(zip(targets, sources, strict=True)):
        if all(low < high for low, high in zip(*target, strict=True)):
            content[_index(image, *target)] = patch[_index(image, *source)]


def _index(image: int, lows: list[int], highs: list[int]) -> Any:
    return (image, slice(None), *map(slice, lows, highs))


@dataclass(frozen=True, eq=False)
class Reach:
    """The receptive field of each output cell of an operator along one axis.

    Attributes:
        first: First input cell per output cell; may lie outside the grid.
        last: Last input cell, inclusive.
    """

    first: Integers
    last: Integers

    @classmethod
    def strided(cls, cells: int, offset: int, step: int, extent: int) -> Reach:
        """Of sliding kernels: output ``o`` reads ``extent`` cells from ``o * step + offset`` on."""
        first: Integers = np.arange(cells, dtype=np.int64) * step + offset
        return cls(first, first + extent - 1)

    @classmethod
    def transposed(cls, cells: int, offset: int, step: int, extent: int) -> Reach:
        """Of transposed kernels: input ``i`` is read by outputs from ``i * step + offset`` on."""
        outputs: Integers = np.arange(cells, dtype=np.int64) - offset
        last: Integers = outputs // step
        return cls(np.minimum(-((extent - 1 - outputs) // step), last), last)

    @classmethod
    def weighted(cls, matrix: Tensor) -> Reach:
        """Of a linear map: output ``o`` reads where row ``o`` of the matrix is not zero."""
        used = (matrix != 0).cpu().numpy()
        last = used.shape[1] - 1 - used[:, ::-1].argmax(axis=1)
        return cls(used.argmax(axis=1).astype(np.int64), last.astype(np.int64))

    def affected(self, lows: Integers, highs: Integers) -> tuple[Integers, Integers]:
        """The output cells ``[low, high)`` that read any of the given input cells, per image."""
        reads = (self.last[None] >= lows[:, None]) & (self.first[None] < highs[:, None])
        any_read = reads.any(axis=1)
        starts = np.where(any_read, reads.argmax(axis=1), 0)
        stops = np.where(any_read, reads.shape[1] - reads[:, ::-1].argmax(axis=1), 0)
        return starts.astype(np.int64), stops.astype(np.int64)

    def read(self, starts: Integers, size: int) -> tuple[Integers, Integers]:
        """The input cells ``[low, high)`` that boxes of the output read, per image."""
        cells = starts[:, None] + np.arange(size)[None]
        return self.first[cells].min(axis=1), self.last[cells].max(axis=1) + 1


def affected_boxes(boxes: BoxSet, reaches: Sequence[Reach], shape: Sequence[int]) -> BoxSet:
    """The boxes of an operator's output outside of which nothing changes.

    Args:
        boxes: Changed boxes of the input.
        reaches: One per axis.
        shape: Of the output.
    """
    spans = [
        reach.affected(boxes.starts[:, axis], boxes.ends[:, axis])
        for axis, reach in enumerate(reaches)
    ]
    lows, highs = (np.stack(sides, axis=1) for sides in zip(*spans, strict=True))
    return BoxSet.around(lows, highs, shape)


def read_boxes(
    boxes: BoxSet, reaches: Sequence[Reach], shape: Sequence[int] | None = None
) -> BoxSet:
    """The boxes of an operator's input that boxes of its output read.

    Args:
        boxes: Of the output.
        reaches: One per axis.
        shape: Of the input, if the boxes must lie inside it.
    """
    spans = [
        reach.read(boxes.starts[:, axis], boxes.size[axis]) for axis, reach in enumerate(reaches)
    ]
    lows, highs = (np.stack(sides, axis=1) for sides in zip(*spans, strict=True))
    if shape is not None:
        return BoxSet.around(lows, highs, shape)
    return BoxSet(lows, tuple(int(cells) for cells in (highs - lows).max(axis=0)))


def select_cells(content: Tensor, cells: Sequence[Sequence[Tensor]]) -> Tensor:
    """Selects cells along every axis, other ones for each image.

    Args:
        content: ``(k, C, *size)``.
        cells: Per image and axis, the indices of the selected cells.
    """
    selected = []
    for image, per_axis in enumerate(cells):
        values = content[image]
        for axis, indices in enumerate(per_axis):
            values = values.index_select(1 + axis, indices)
        selected.append(values)
    return torch.stack(selected)
