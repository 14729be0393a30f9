"""Histograms of unit values, per concept: every threshold at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from voxplain.concepts.dissection.case_masks import Combinations

Array = NDArray[np.float64]
_CODES = 2**14
"""Steps from the lowest to the highest threshold of a unit, before values are compared."""
_OPEN = 2**14
"""Set in the table where values of one step may reach one threshold more, or not."""
_COMPARISONS = 8
"""Of values whose step holds thresholds; bisection where more are needed."""


class Thresholds:
    """Finds how many thresholds values reach, faster than by bisection.

    The range of the thresholds of a unit is divided into equal steps, and a table says how many
    thresholds lie below each of them. Only values in a step that holds a threshold are compared.

    Args:
        edges: ``(units, edges)``, ascending, float32.
    """

    def __init__(self, edges: Tensor) -> None:
        self.edges = edges.contiguous()
        self._rows = [_UnitThresholds.of(row) for row in self.edges.numpy()]

    def bins(self, units: slice, values: NDArray[np.float32]) -> NDArray[np.int16]:
        """How many thresholds each value reaches, ``(units, voxels)``.

        A value is at or above threshold ``i`` where it reaches more than ``i``.

        Args:
            units: Which units.
            values: ``(units, voxels)``.
        """
        rows = self._rows[units]
        return np.stack([row.bins(part) for row, part in zip(rows, values, strict=True)])


@dataclass(frozen=True, eq=False)
class _UnitThresholds:
    """The thresholds of one unit.

    Attributes:
        ends: Ascending, then NaN.
        scale: Steps per unit of activation; 0 where steps cannot be told apart.
        table: Thresholds below each step, with a mark where it holds some.
    """

    ends: NDArray[np.float32]
    scale: np.float32
    table: NDArray[np.int16]

    @classmethod
    def of(cls, edges: NDArray[np.float32]) -> _UnitThresholds:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            scale = np.float32((_CODES - 3) / (edges[-1] - edges[0]))
        if not (np.isfinite(scale) and np.isfinite(edges[0])):
            scale = np.float32(0)
        held = np.bincount(_steps(edges, edges[0], scale), minlength=_CODES)
        below = held.cumsum() - held
        lowest = int(np.count_nonzero(edges == edges[0]))  # all of its step reach these
        below[1] += lowest
        held[1] -= lowest
        table = np.where(held > 0, below | _OPEN, below).astype(np.int16)
        return cls(np.append(edges, np.float32(np.nan)), scale, table)

    def bins(self, values: NDArray[np.float32]) -> NDArray[np.int16]:
        if not self.scale:
            return np.searchsorted(self.ends[:-1], values, side="right").astype(np.int16)
        found = self.table.take(_steps(values, self.ends[0], self.scale))
        open_ = np.flatnonzero(found & _OPEN)
        if len(open_):
            found[open_] = self._compared(values[open_], found[open_] & ~_OPEN)
        return found

    def _compared(self, values: NDArray[np.float32], bins: NDArray[np.int16]) -> NDArray[np.int16]:
        for _ in range(_COMPARISONS):
            more = values >= self.ends.take(bins)
            if not more.any():
                return bins
            bins += more
        return np.searchsorted(self.ends[:-1], values, side="right").astype(np.int16)


def _steps(values: NDArray[np.float32], lowest: np.float32, scale: np.float32) -> NDArray[np.intp]:
    """The steps of values: 0 below the lowest threshold and for NaN, then 1 and so on."""
    with np.errstate(over="ignore", invalid="ignore"):
        steps = values - lowest
        steps *= scale
    np.fmax(steps, np.float32(-1), out=steps)
    np.fmin(steps, np.float32(_CODES - 2), out=steps)
    np.floor(steps, out=steps)
    steps += np.float32(1)
    return steps.astype(np.intp)


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
        columns = slice(part.first, part.first + part.table.shape[1])
        for unit, row in enumerate(bins):
            found = np.bincount(offset + row, minlength=cells)
            counts = found.reshape(len(part.table), edges + 1).astype(np.float64)
            inside[unit, columns] = part.table.T @ counts
            everywhere[unit] = counts.sum(axis=0)
    if not parts:
        everywhere[:] = counted(bins, edges + 1)
    return inside, everywhere


def counted(index: NDArray[Any], cells: int) -> Array:
    """How often each number occurs in each row, ``(rows, cells)``."""
    rows = [np.bincount(row, minlength=cells) for row in index]
    return np.stack(rows).astype(np.float64)


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

    def begin(self, known: NDArray[np.bool_]) -> None:
        """Makes room for a case for which these concepts are known."""
        shape = (len(self.inside), self.inside.shape[2])
        self.everywhere.setdefault(tuple(known.tolist()), np.zeros(shape))

    def add(self, rows: slice, inside: Array, everywhere: Array, known: NDArray[np.bool_]) -> None:
        """Takes in the histograms of some units for one case, after :meth:`begin`."""
        self.inside[rows] += inside * known[None, :, None]
        self.everywhere[tuple(known.tolist())][rows] += everywhere

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
