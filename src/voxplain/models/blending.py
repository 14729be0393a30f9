"""How the outputs of overlapping windows are weighted.

A voxel is described by the cells of the windows that show it. Far from the border these repeat, so
the sums of the weights are stored once for each kind of voxel, and no array of the size of the
volume is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Literal

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

Blend = Literal["gaussian", "constant", "nnunet"]

_SIGMA, _FLOOR, _NNUNET_PEAK = 1 / 8, 1e-3, 10
_KEPT = 64 * 2**20
"""Bytes of weights that are kept."""


@dataclass(frozen=True)
class WindowAxis:
    """The windows along one axis of a padded volume, or of its outputs.

    Attributes:
        starts: First voxel of each window; on the outputs, its first cell.
        used: First and end of the cells of each window whose output is used.
        alike: For each window the first one of equal weights.
        kinds: Number of the kind of each voxel, ``(length,)``.
        shown: Whether some window shows a kind at a cell, ``(kinds, side)`` float64 of 0 and 1.
    """

    starts: tuple[int, ...]
    used: tuple[tuple[int, int], ...]
    alike: tuple[int, ...]
    kinds: Tensor
    shown: Tensor

    @cached_property
    def shares(self) -> Tensor:
        """1 over the number of windows that show a voxel of each kind, ``(kinds,)`` float64."""
        return 1 / self.shown.sum(dim=1)

    @classmethod
    def of(
        cls, starts: Sequence[int], used: Sequence[tuple[int, int]], length: int, side: int
    ) -> WindowAxis:
        """The axis of windows that start at these voxels.

        Args:
            starts: First voxel of each window.
            used: First and end of the cells of each window whose output is used.
            length: Voxels along the axis.
            side: Cells of a window.
        """
        cells: list[list[int]] = [[] for _ in range(length)]
        for start, (first, end) in zip(starts, used, strict=True):
            for cell in range(first, end):
                cells[start + cell].append(cell)
        numbers: dict[tuple[int, ...], int] = {}
        kinds = [numbers.setdefault(tuple(shown), len(numbers)) for shown in cells]
        shown = torch.zeros(len(numbers), side, dtype=torch.float64)
        for at_cells, number in numbers.items():
            shown[number, list(at_cells)] = 1
        seen: dict[tuple[object, ...], int] = {}
        alike = (
            seen.setdefault((ends, *kinds[start : start + side]), index)
            for index, (start, ends) in enumerate(zip(starts, used, strict=True))
        )
        return cls(tuple(starts), tuple(used), tuple(alike), torch.tensor(kinds), shown)


@dataclass(frozen=True)
class Blending:
    """The weights of windows on a product grid.

    Attributes:
        blend: The weights of one window before they are normalized.
        window: Voxels of a window per axis.
        cells: The voxel of the window whose weight each cell has, per axis.
        axes: The windows along each axis.
    """

    blend: Blend
    window: tuple[int, ...]
    cells: tuple[tuple[int, ...], ...]
    axes: tuple[WindowAxis, ...]

    @property
    def size(self) -> tuple[int, ...]:
        """Cells of a window per axis."""
        return tuple(map(len, self.cells))

    def weight(self, position: tuple[int, ...]) -> Tensor:
        """Weights of a window, ``(*size)`` in float64; all windows sum to 1 at a covered cell."""
        alike = tuple(axis.alike[at] for axis, at in zip(self.axes, position, strict=True))
        weights = self._recent.get(alike)
        if weights is None:
            weights = self._weight(alike)
            if (len(self._recent) + 1) * weights.nbytes <= _KEPT:
                self._recent[alike] = weights
        return weights

    @cached_property
    def _recent(self) -> dict[tuple[int, ...], Tensor]:
        """Weights that are kept, since many windows have the same."""
        return {}

    def _weight(self, position: tuple[int, ...]) -> Tensor:
        used, kinds = [], []
        for axis, index in zip(self.axes, position, strict=True):
            first, end = axis.used[index]
            used.append(slice(first, end))
            kinds.append(axis.kinds[axis.starts[index] + first : axis.starts[index] + end])
        weights = torch.zeros(self.size, dtype=torch.float64)
        if self.blend == "constant":
            pairs = zip(self.axes, kinds, strict=True)
            weights[tuple(used)] = _outer([axis.shares[own] for axis, own in pairs])
        else:
            bell, scale = self._bell[tuple(used)], self._scale
            weights[tuple(used)] = bell * scale[np.ix_(*kinds)]
        return weights

    @cached_property
    def _bell(self) -> Tensor:
        return window_weights(self.blend, self.window)[np.ix_(*self.cells)]

    @cached_property
    def _scale(self) -> Tensor:
        """1 over the sum of the weights at a voxel of each kind; 0 where no window shows it."""
        total = self._bell
        for axis in self.axes:  # the axes come back in their order after a whole turn
            total = torch.tensordot(total, axis.shown, dims=([0], [1]))
        return torch.where(total > 0, 1 / total, 0)


def window_weights(blend: Blend, size: Sequence[int]) -> Tensor:
    """The weights of one window before they are normalized, ``(*size)`` in float64.

    ``gaussian`` is a bell of sigma 1/8 of each side around the center, at least 1e-3, as in MONAI;
    ``nnunet`` the bell of nnU-Net, of the same sigma around the voxel behind the center, cut at 4
    sigma and rounded to half precision, with its smallest value where that gives 0.
    """
    if blend == "constant":
        return torch.ones(tuple(size), dtype=torch.float64)
    if blend == "gaussian":
        bells = []
        for side in size:
            offset = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
            bells.append(torch.exp(-0.5 * (offset / (side * _SIGMA)) ** 2))
        return _outer(bells).clamp_min(_FLOOR)
    impulse = np.zeros(tuple(size))
    impulse[tuple(side // 2 for side in size)] = 1
    sigmas = [side * _SIGMA for side in size]
    bell = torch.from_numpy(ndimage.gaussian_filter(impulse, sigmas, mode="constant"))
    half = (bell / bell.max() * _NNUNET_PEAK).half().double()
    return torch.where(half > 0, half, half[half > 0].min())


def _outer(vectors: Sequence[Tensor]) -> Tensor:
    return reduce(lambda left, right: left[..., None] * right, vectors)
