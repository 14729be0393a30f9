"""Histograms of unit values, per concept: every threshold at once."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from voxplain.concepts.dissection.case_masks import Combinations

Array = NDArray[np.float64]
_CELLS_AT_ONCE = 2**21
"""Cells of histograms that are counted in one go."""
_COMPARISONS = 8
"""After a look into the table; bisection where more are needed."""


class Thresholds:
    """Finds how many thresholds values reach, faster than by bisection.

    A table says how many are certainly reached for each value of the upper 16 bits of a float, so
    that one or two comparisons are left.

    Args:
        edges: ``(units, edges)``, ascending, float32.
    """

    def __init__(self, edges: Tensor) -> None:
        self.edges = edges.contiguous()
        lowest = _lowest_values()
        known = [np.searchsorted(row, lowest, side="right") for row in self.edges.numpy()]
        self._table = np.stack(known).astype(np.int16)
        nothing = np.full((len(edges), 1), np.nan, dtype=np.float32)
        self._ends = np.concatenate([self.edges.numpy(), nothing], axis=1)

    def bins(self, units: slice, values: Tensor) -> NDArray[np.int16]:
        """How many thresholds each value reaches, ``(units, voxels)``.

        A value is at or above threshold ``i`` where it reaches more than ``i``.

        Args:
            units: Which units.
            values: ``(units, voxels)``, float32.
        """
        rows = zip(values.contiguous().numpy(), self._table[units], self._ends[units], strict=True)
        return np.stack([_reached(*row) for row in rows])


def _reached(
    values: NDArray[np.float32], table: NDArray[np.int16], ends: NDArray[np.float32]
) -> NDArray[np.int16]:
    upper = values.view(np.uint16)[1 if sys.byteorder == "little" else 0 :: 2]
    bins = table.take(upper)
    for _ in range(_COMPARISONS):
        more = values >= ends.take(bins)
        if not more.any():
            return bins
        bins += more
    return np.searchsorted(ends[:-1], values, side="right").astype(np.int16)


@lru_cache(maxsize=1)
def _lowest_values() -> NDArray[np.float32]:
    """The lowest float32 with each value of the upper 16 bits; the lowest of all for NaN."""
    upper = np.arange(2**16, dtype=np.uint32) << 16
    lowest = np.where(upper >> 31, upper | 0xFFFF, upper).astype(np.uint32).view(np.float32)
    return np.where(np.isnan(lowest), -np.inf, lowest).astype(np.float32)


def joint_histograms(
    bins: NDArray[np.int16], parts: Sequence[Combinations], edges: int
) -> tuple[Array, Array]:
    """How many voxels of each concept, and of all, reach how many thresholds.

    Voxels are counted by unit, combination of concepts and bin, and summed over the combinations
    that hold a concept, so that the time hardly depends on the number of concepts.

    Args:
        bins: ``(units, voxels)``.
        parts: The combinations of concepts at the voxels.
        edges: Number of thresholds.

    Returns:
        ``(units, concepts, edges + 1)`` and ``(units, edges + 1)``.
    """
    concepts = sum(part.table.shape[1] for part in parts)
    inside = np.zeros((len(bins), concepts, edges + 1))
    everywhere = np.zeros((len(bins), edges + 1))
    for part in parts:
        cells = len(part.table) * (edges + 1)
        offset = part.index * (edges + 1)
        size = max(1, _CELLS_AT_ONCE // cells)
        columns = slice(part.first, part.first + part.table.shape[1])
        for first in range(0, len(bins), size):
            rows = slice(first, min(first + size, len(bins)))
            counts = counted(bins[rows] + offset, cells).reshape(-1, len(part.table), edges + 1)
            inside[rows, columns] = part.table.T @ counts
            everywhere[rows] = counts.sum(axis=1)
    if not parts:
        everywhere[:] = counted(bins, edges + 1)
    return inside, everywhere


def counted(index: NDArray[Any], cells: int) -> Array:
    """How often each number occurs in each row, ``(rows, cells)``."""
    shifted = index + np.arange(len(index))[:, None] * cells
    counts = np.bincount(shifted.ravel(), minlength=len(index) * cells)
    return counts.reshape(len(index), cells).astype(np.float64)


@dataclass
class Counts:
    """Histograms of one group of units, summed over cases.

    Attributes:
        inside: ``(units, concepts, edges + 1)``: voxels of a concept by bin.
        everywhere: The same for all voxels of the cases for which a concept is known, by the
            concepts that are known: cases with the same known concepts share one.
    """

    inside: Array
    everywhere: dict[tuple[bool, ...], Array]

    @classmethod
    def empty(cls, units: int, concepts: int, edges: int) -> Counts:
        """Nothing counted yet."""
        return cls(np.zeros((units, concepts, edges + 1)), {})

    def add(self, rows: slice, inside: Array, everywhere: Array, known: NDArray[np.bool_]) -> None:
        """Takes in the histograms of some units for one case."""
        self.inside[rows] += inside * known[None, :, None]
        key = tuple(known.tolist())
        shape = (len(self.inside), self.inside.shape[2])
        self.everywhere.setdefault(key, np.zeros(shape))[rows] += everywhere

    def reached(self, concept: int) -> tuple[Array, Array]:
        """Voxels at or above every threshold, of a concept and of all, each ``(units, edges)``.

        Only cases for which the concept is known count.
        """
        every = [counts for known, counts in self.everywhere.items() if known[concept]]
        total = np.sum(every, axis=0) if every else np.zeros_like(self.inside[:, 0])
        return reaching(self.inside[:, concept]), reaching(total)

    def size(self, concept: int) -> tuple[float, float]:
        """Voxels of a concept and of all, in cases for which it is known."""
        every = [counts[0].sum() for known, counts in self.everywhere.items() if known[concept]]
        return float(self.inside[0, concept].sum()), float(np.sum(every))


def reaching(histogram: Array) -> Array:
    """Voxels at or above every threshold of histograms ``(..., edges + 1)``, ``(..., edges)``."""
    return histogram[..., ::-1].cumsum(axis=-1)[..., ::-1][..., 1:]
