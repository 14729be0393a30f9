"""Mask samplers: declarations, compared by value, of the masks of an image."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from voxplain.engine.context import Context
from voxplain.engine.masks.coalitions import Coalitions
from voxplain.engine.masks.dense import Grids
from voxplain.engine.masks.masks import Boxes, Masks
from voxplain.engine.randomness import generator
from voxplain.engine.stream_io import StreamInput
from voxplain.engine.taps import Tap
from voxplain.extents import Extent, resolve
from voxplain.regions import RegionSpec


class MaskSampler(ABC):
    """Declaration of the masks of a method; subclasses are frozen dataclasses."""

    @property
    def taps(self) -> tuple[Tap, ...]:
        """The layers from whose activations the masks are made."""
        return ()

    @abstractmethod
    def masks(self, item: StreamInput, context: Context) -> Masks:
        """The masks of one image."""

    @abstractmethod
    def expected(self, context: Context) -> int:
        """Approximate number of masks, before anything is computed."""


@dataclass(frozen=True)
class SlidingBox(MaskSampler):
    """Boxes that start at multiples of the stride; the last one is cropped at the border.

    Attributes:
        window: Extent of a box.
        stride: Distance between boxes; None for half a box.
    """

    window: Extent
    stride: Extent | None = None

    def masks(self, item: StreamInput, context: Context) -> Masks:
        window = self._window(context)
        sides = [list(axis) for axis in self._axes(context)]
        boxes = tuple(itertools.product(*sides))
        return Boxes(boxes, context.shape, tuple(float(side) for side in window))

    def expected(self, context: Context) -> int:
        return math.prod(len(list(axis)) for axis in self._axes(context))

    def _window(self, context: Context) -> tuple[int, ...]:
        sizes = resolve(self.window, context.shape, context.spacing)
        return tuple(
            min(max(1, size), side) for size, side in zip(sizes, context.shape, strict=True)
        )

    def _axes(self, context: Context) -> Iterator[list[slice]]:
        """Sides of the boxes along each axis."""
        window = self._window(context)
        strides: tuple[int, ...] = tuple((size + 1) // 2 for size in window)
        if self.stride is not None:
            strides = resolve(self.stride, context.shape, context.spacing)
        for side, size, stride in zip(context.shape, window, strides, strict=True):
            count = math.ceil((side - size) / max(1, stride)) + 1
            starts = (index * max(1, stride) for index in range(count))
            yield [slice(start, min(start + size, side)) for start in starts if start < side]


@dataclass(frozen=True)
class RandomGrids(MaskSampler):
    """Grids of Bernoulli cells, interpolated linearly and shifted by less than a cell.

    Attributes:
        samples: Number of masks.
        cells: Number of cells along the shortest axis; along the others, cells have the same size
            in mm.
        keep: Probability that a cell is kept.
    """

    samples: int
    cells: int = 7
    keep: float = 0.5

    def masks(self, item: StreamInput, context: Context) -> Masks:
        """Grids and shifts, each drawn from a generator of its own."""
        cells = self._cells(context)
        cell = tuple(math.ceil(side / n) for side, n in zip(context.shape, cells, strict=True))
        grids, shifts = [], []
        for index in range(self.samples):
            source = generator(item.key, "grid", self.cells, self.keep, index)
            grids.append((torch.rand(cells, generator=source) < self.keep).float())
            draws = torch.rand(sum(size > 1 for size in cell), generator=source).tolist()
            shifts.append([int(draws.pop(0) * size) if size > 1 else 0 for size in cell])
        return Grids(torch.stack(grids), torch.tensor(shifts), cell, context.shape)

    def expected(self, context: Context) -> int:
        return self.samples

    def _cells(self, context: Context) -> tuple[int, ...]:
        spacing = context.spacing or (1.0,) * len(context.shape)
        lengths = [side * step for side, step in zip(context.shape, spacing, strict=True)]
        longer = [length for length, side in zip(lengths, context.shape, strict=True) if side > 1]
        cell = min(longer, default=1.0) / self.cells
        counts = (max(1, round(length / cell)) for length in lengths)
        return tuple(min(n, side) for n, side in zip(counts, context.shape, strict=True))


@dataclass(frozen=True)
class RegionDesign(MaskSampler):
    """Coalitions over the regions of a partition of the image.

    Attributes:
        regions: How the image is partitioned.
    """

    regions: RegionSpec

    def masks(self, item: StreamInput, context: Context) -> Masks:
        """Coalitions over the regions of the image without noise."""
        regions = context.regions(self.regions, item)
        design = self.design(regions.count, item.key).to(torch.float32)
        return Coalitions(regions, design, context.shape)

    def expected(self, context: Context) -> int:
        """Number of coalitions for the expected number of regions."""
        return self.rows(context.expected_regions(self.regions))

    @abstractmethod
    def design(self, count: int, key: str) -> Tensor:
        """Coalitions ``(n, count)``: 1 keeps a region, 0 removes it, values between fade it.

        Args:
            count: Number of regions.
            key: Seed of random draws.
        """

    @abstractmethod
    def rows(self, count: int) -> int:
        """Number of coalitions over ``count`` regions."""


@dataclass(frozen=True)
class OneRegionOff(RegionDesign):
    """Every region removed alone."""

    def design(self, count: int, key: str) -> Tensor:
        return 1 - torch.eye(count)

    def rows(self, count: int) -> int:
        return count
