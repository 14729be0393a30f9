"""Boxes of one size, one per image of a batch, and which cells of a grid read which others."""

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
    """A box per image; all have one size, so that their contents are one batch.

    Attributes:
        starts: First cell per image and spatial axis, ``(k, rank)``; may lie outside the grid.
        size: Cells per spatial axis.
    """

    starts: Integers
    size: tuple[int, ...]

    @classmethod
    def around(cls, lows: Integers, highs: Integers, shape: Sequence[int]) -> BoxSet:
        """The smallest boxes of one size inside a grid that cover ``[low, high)`` of each image."""
        grid = np.asarray(shape, dtype=np.int64)
        size = np.clip((highs - lows).max(axis=0), 1, grid)
        return cls(np.clip(lows, 0, grid - size), tuple(int(cells) for cells in size))

    @classmethod
    def covering(cls, several: Sequence[BoxSet], shape: Sequence[int]) -> BoxSet:
        """Boxes that cover those of several tensors on one grid."""
        if all(one.same(several[0]) for one in several):
            return several[0]
        lows = np.minimum.reduce([one.starts for one in several])
        highs = np.maximum.reduce([one.ends for one in several])
        return cls.around(lows, highs, shape)

    @property
    def ends(self) -> Integers:
        """One behind the last cell, ``(k, rank)``."""
        ends: Integers = self.starts + np.asarray(self.size, dtype=np.int64)
        return ends

    def same(self, other: BoxSet) -> bool:
        """Whether these are the same cells."""
        return self.size == other.size and bool((self.starts == other.starts).all())

    def inside(self, shape: Sequence[int]) -> bool:
        """Whether no box reaches outside the grid."""
        grid = np.asarray(shape, dtype=np.int64)
        return bool((self.starts >= 0).all() and (self.ends <= grid).all())

    def share(self, shape: Sequence[int]) -> float:
        """The share of a grid that one box covers."""
        return math.prod(self.size) / max(1, math.prod(shape))

    def places(self) -> Iterator[Any]:
        """Per image, how its box is found in ``(k, C, *spatial)``; for boxes inside the grid."""
        for image, start in enumerate(self.starts.tolist()):
            box = (slice(low, low + n) for low, n in zip(start, self.size, strict=True))
            yield (image, slice(None), *box)


def cut(source: Tensor, boxes: BoxSet, fill: float = 0.0) -> Tensor:
    """The content of each box of one tensor.

    Args:
        source: ``(1, C, *spatial)``.
        boxes: May reach outside the grid.
        fill: What lies there.

    Returns:
        ``(k, C, *size)``.
    """
    content = blank(source, boxes, source.shape[2:], fill)
    whole = BoxSet(np.zeros_like(boxes.starts), tuple(source.shape[2:]))
    _write(content, boxes, source.expand(len(content), *source.shape[1:]), whole)
    return content


def overlay(content: Tensor, boxes: BoxSet, patch: Tensor, inner: BoxSet) -> Tensor:
    """Writes what is known of other boxes over the content of boxes, in place."""
    _write(content, boxes, patch, inner)
    return content


def covers(inner: BoxSet, outer: BoxSet, shape: Sequence[int]) -> bool:
    """Whether nothing of the grid is in the outer boxes that is not in the inner ones."""
    grid = np.asarray(shape, dtype=np.int64)
    lows, highs = np.maximum(outer.starts, 0), np.minimum(outer.ends, grid)
    return bool(((inner.starts <= lows) & (inner.ends >= highs)).all())


def blank(like: Tensor, boxes: BoxSet, shape: Sequence[int], fill: float) -> Tensor:
    """Room for the content of boxes; what lies outside the grid is filled already."""
    size = (len(boxes.starts), like.shape[1], *boxes.size)
    return like.new_empty(size) if boxes.inside(shape) else like.new_full(size, fill)


def _write(content: Tensor, outer: BoxSet, patch: Tensor, inner: BoxSet) -> None:
    lows = np.maximum(outer.starts, inner.starts)
    highs = np.minimum(outer.ends, inner.ends)
    targets = zip((lows - outer.starts).tolist(), (highs - outer.starts).tolist(), strict=True)
    sources = zip((lows - inner.starts).tolist(), (highs - inner.starts).tolist(), strict=True)
    for image, (target, source) in enumerate(zip(targets, sources, strict=True)):
        if all(low < high for low, high in zip(*target, strict=True)):
            content[_place(image, *target)] = patch[_place(image, *source)]


def _place(image: int, lows: list[int], highs: list[int]) -> Any:
    return (image, slice(None), *map(slice, lows, highs))


@dataclass(frozen=True, eq=False)
class Reach:
    """What each output cell of an operation reads along one axis.

    Attributes:
        first: First input cell per output cell; may lie outside the grid.
        last: Last input cell, inclusive.
    """

    first: Integers
    last: Integers

    @classmethod
    def strided(cls, cells: int, offset: int, step: int, extent: int) -> Reach:
        """Of sliding kernels: output ``o`` reads from ``o * step + offset`` on."""
        first: Integers = np.arange(cells, dtype=np.int64) * step + offset
        return cls(first, first + extent - 1)

    @classmethod
    def transposed(cls, cells: int, offset: int, step: int, extent: int) -> Reach:
        """Of transposed kernels: input ``i`` reaches outputs from ``i * step + offset`` on."""
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
        """The output cells ``[low, high)`` that read something of ``[low, high)``, per image."""
        reads = (self.last[None] >= lows[:, None]) & (self.first[None] < highs[:, None])
        some = reads.any(axis=1)
        found = np.where(some, reads.argmax(axis=1), 0)
        behind = np.where(some, reads.shape[1] - reads[:, ::-1].argmax(axis=1), 0)
        return found.astype(np.int64), behind.astype(np.int64)

    def read(self, starts: Integers, size: int) -> tuple[Integers, Integers]:
        """The input cells ``[low, high)`` that boxes of the output read, per image."""
        cells = starts[:, None] + np.arange(size)[None]
        return self.first[cells].min(axis=1), self.last[cells].max(axis=1) + 1


def grown(boxes: BoxSet, reaches: Sequence[Reach], shape: Sequence[int]) -> BoxSet:
    """The boxes of an operation's output outside of which nothing changes."""
    spans = [
        reach.affected(boxes.starts[:, axis], boxes.ends[:, axis])
        for axis, reach in enumerate(reaches)
    ]
    lows, highs = (np.stack(sides, axis=1) for sides in zip(*spans, strict=True))
    return BoxSet.around(lows, highs, shape)


def read(boxes: BoxSet, reaches: Sequence[Reach], shape: Sequence[int] | None = None) -> BoxSet:
    """The boxes of an operation's input that boxes of its output read.

    Args:
        boxes: Of the output.
        reaches: One per axis.
        shape: Of the input, where the boxes must stay inside it.
    """
    spans = [
        reach.read(boxes.starts[:, axis], boxes.size[axis]) for axis, reach in enumerate(reaches)
    ]
    lows, highs = (np.stack(sides, axis=1) for sides in zip(*spans, strict=True))
    if shape is not None:
        return BoxSet.around(lows, highs, shape)
    return BoxSet(lows, tuple(int(cells) for cells in (highs - lows).max(axis=0)))


def one_by_one(content: Tensor, take: Sequence[Sequence[Tensor]]) -> Tensor:
    """Picks cells of every image along every axis.

    Args:
        content: ``(k, C, *size)``.
        take: Per image and axis, which cells.
    """
    picked = []
    for image, per_axis in enumerate(take):
        part = content[image]
        for axis, cells in enumerate(per_axis):
            part = part.index_select(1 + axis, cells)
        picked.append(part)
    return torch.stack(picked)
