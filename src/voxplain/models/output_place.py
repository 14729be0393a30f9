"""Where the cells of a dense output lie in the image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import EllipsisType

import torch
from torch import Tensor, nn

from voxplain.models.geometry import LayerGeometry, follow_network, geometry_of

_ROUNDING = 1e-6


@dataclass(frozen=True)
class OutputPlace:
    """The grid of an output: cell ``i`` of an axis lies at voxel ``start + stride * i``.

    Attributes:
        start: Voxel of cell 0 per axis.
        stride: Voxels per cell, per axis.
        cells: Cells per axis.
        image: Spatial shape of the image.
    """

    start: tuple[float, ...]
    stride: tuple[float, ...]
    cells: tuple[int, ...]
    image: tuple[int, ...]

    @classmethod
    def same(cls, image: Sequence[int]) -> OutputPlace:
        """An output with a cell at each voxel of an image of this spatial shape."""
        rank = len(image)
        return cls((0.0,) * rank, (1.0,) * rank, tuple(image), tuple(image))

    @classmethod
    def of_box(cls, box: Sequence[slice], image: Sequence[int]) -> OutputPlace:
        """An output with a cell at each voxel of a box of the image."""
        sides = tuple(side.stop - side.start for side in box)
        starts = tuple(float(side.start) for side in box)
        return cls(starts, (1.0,) * len(sides), sides, tuple(image))

    @property
    def is_same(self) -> bool:
        """Whether the output has a cell at each voxel of the image."""
        return self == OutputPlace.same(self.image)

    @property
    def voxels_per_cell(self) -> float:
        """Volume of a cell in voxels."""
        return math.prod(map(abs, self.stride))

    @property
    def covered(self) -> tuple[slice, ...]:
        """The voxels that the cells cover, one slice per axis."""
        return tuple(slice(*covered_ends(*axis)) for axis in self._axes)

    @property
    def margins(self) -> tuple[tuple[int, int], ...]:
        """Voxels before the first and behind the last cell that belong to no cell, per axis.

        Each cell has ``stride`` voxels. Cells half way between two voxels, as after an even
        kernel, count as the voxel before.
        """
        found = []
        for start, stride, cells, voxels in self._axes:
            left = max(0, math.floor(voxels - cells * stride + _ROUNDING))
            before = math.floor(start - (stride - 1) / 2 + _ROUNDING)
            before = min(max(0, before), left)
            found.append((before, left - before))
        return tuple(found)

    @property
    def middles(self) -> tuple[tuple[int, ...], ...]:
        """For each cell along each axis the voxel in the middle of its own, the later of two."""
        found = []
        for (_, stride, cells, voxels), (before, _) in zip(self._axes, self.margins, strict=True):
            middles = (math.floor((cell + 0.5) * stride + _ROUNDING) for cell in range(cells))
            found.append(tuple(min(before + middle, voxels - 1) for middle in middles))
        return tuple(found)

    def on_output(self, values: Tensor) -> Tensor:
        """Values ``(..., *image)`` at the voxels nearest to the cells, ``(..., *cells)``."""
        for dim, (start, stride, cells, voxels) in enumerate(self._axes, start=-len(self.image)):
            voxel = start + stride * torch.arange(cells, dtype=torch.float64)
            nearest = (voxel - 0.5).ceil().long().clamp(0, voxels - 1)
            values = values.index_select(dim, nearest.to(values.device))
        return values

    def on_image(self, values: Tensor, outside: float = 0) -> Tensor:
        """Values ``(..., *cells)`` of the nearest cells at the covered voxels, ``(..., *image)``.

        Args:
            values: On the output.
            outside: The value at voxels that are not covered.
        """
        if self.is_same:
            return values
        for dim, nearest in enumerate(self._nearest_cells, start=-len(self.image)):
            values = values.index_select(dim, nearest.to(values.device))
        placed = values.new_full((*values.shape[: -len(self.image)], *self.image), outside)
        placed[at_box(self.covered)] = values
        return placed

    def mean_on_output(self, values: Tensor) -> Tensor:
        """Mean of values ``(..., *image)`` over the voxels of each cell, ``(..., *cells)``."""
        means = values[at_box(self.covered)]
        for dim, nearest in enumerate(self._nearest_cells, start=-len(self.image)):
            cells, nearest = self.cells[dim], nearest.to(values.device)
            counts = torch.bincount(nearest, minlength=cells).clamp_min(1).to(values)
            sums = means.new_zeros([*means.shape[:dim], cells, *means.shape[dim:][1:]])
            sums = sums.index_add(dim, nearest, means)
            means = sums / counts.view(-1, *(1,) * (-dim - 1))
        return means

    @property
    def _nearest_cells(self) -> list[Tensor]:
        """For each covered voxel along each axis the nearest cell; half way, the next one."""
        found = []
        for (start, stride, cells, _), side in zip(self._axes, self.covered, strict=True):
            voxel = torch.arange(side.start, side.stop, dtype=torch.float64)
            found.append(((voxel - start) / stride + 0.5).floor().long().clamp(0, cells - 1))
        return found

    def in_words(self) -> str:
        """The covered voxels, as ``voxels 2 to 13 of 16, ...`` per axis."""
        sides = zip(self.covered, self.image, strict=True)
        listed = (f"{side.start} to {side.stop - 1} of {voxels}" for side, voxels in sides)
        return f"voxels {', '.join(listed)}"

    @property
    def covers_all(self) -> bool:
        """Whether every voxel is covered."""
        whole = tuple(slice(0, voxels) for voxels in self.image)
        return self.covered == whole

    @property
    def _axes(self) -> list[tuple[float, float, int, int]]:
        return list(zip(self.start, self.stride, self.cells, self.image, strict=True))


def place_of_output(
    network: nn.Module, explained: Callable[[Tensor], Tensor], example: Tensor
) -> OutputPlace | None:
    """Where the cells of the explained output lie.

    None where the geometry is unknown, and for an output without spatial axes.

    Args:
        network: The network; it runs once or twice.
        explained: Its explained output for an input.
        example: ``(1, C, *spatial)``.

    Raises:
        ModelError: If the network fails.
    """
    image = tuple(example.shape[2:])
    cells = tuple(explained(example).shape[2:])
    if cells == image or not cells:
        return OutputPlace.same(image) if cells else None
    calls = follow_network(_Explained(network, explained), example)
    geometry = geometry_of(calls[0].outputs[0], image)
    known = geometry.exact and _has_all_axes(geometry)
    return OutputPlace(geometry.start, geometry.stride, geometry.shape, image) if known else None


def _has_all_axes(geometry: LayerGeometry) -> bool:
    return geometry.layout is not None and all(size >= 1 for size in geometry.shape)


def at_box(box: Sequence[slice]) -> tuple[EllipsisType | slice, ...]:
    """Index of a box in ``(..., *spatial)``."""
    return (..., *box)


class _Explained(nn.Module):
    """The network with the choice of its explained output, as one module."""

    def __init__(self, network: nn.Module, explained: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.explained = network, explained

    def forward(self, inputs: Tensor) -> Tensor:
        return self.explained(inputs)


def covered_ends(start: float, stride: float, cells: int, voxels: int) -> tuple[int, int]:
    """First and end of the voxels that the cells of an axis cover.

    These are the voxels whose nearest cell exists. At an end of the image where no whole cell is
    missing, as after a padded strided convolution, the outermost cell covers the rest.

    Args:
        start: Voxel of cell 0.
        stride: Voxels per cell; negative after a flip.
        cells: How many there are.
        voxels: Of the image.
    """
    step = abs(stride)
    low, high = sorted((start, start + stride * (cells - 1)))
    first = 0 if low - step < 0 else math.ceil(low - step / 2)
    end = voxels if high + step > voxels - 1 else math.ceil(high + step / 2)
    return max(0, first), min(voxels, end)
