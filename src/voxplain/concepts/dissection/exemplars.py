"""The cases in which units are most and least active, and where."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voxplain.concepts.dissection.case_masks import CaseMasks
from voxplain.records.dissection import Exemplar


class ExemplarCases:
    """For every unit the cases with the highest and the lowest maximum; the others are forgotten.

    Args:
        units: Number of units.
        count: Cases that are kept at each end.
    """

    def __init__(self, units: int, count: int) -> None:
        self._count = count
        self._top = np.full((units, count), -np.inf)
        self._bottom = np.full((units, count), np.inf)
        self._cases: list[str] = []
        self._where = {end: np.full((units, count, 2), -1, dtype=np.int64) for end in (0, 1)}
        self._shapes: list[tuple[int, ...]] = []

    def add_case(self, case: str, shape: tuple[int, ...]) -> None:
        """The case that units are added of from now on."""
        self._cases.append(case)
        self._shapes.append(shape)

    def add(self, rows: slice, values: NDArray[np.float32], masks: CaseMasks) -> None:
        """Takes in some units of the present case.

        Args:
            rows: Which units.
            values: ``(units, voxels)`` inside of the region of interest.
            masks: The region.
        """
        voxel = values.argmax(axis=1)
        place = masks.places[voxel]
        number = np.full_like(place, len(self._cases) - 1)
        found = np.stack([number, place], axis=1)[:, None]
        value = values[np.arange(len(values)), voxel].astype(np.float64)[:, None]
        self._merge(0, self._top, rows, value, found)
        self._merge(1, self._bottom, rows, value, found)

    def _merge(
        self,
        end: int,
        kept: NDArray[np.float64],
        rows: slice,
        value: NDArray[np.float64],
        found: NDArray[np.int64],
    ) -> None:
        values = np.concatenate([kept[rows], value], axis=1)
        where = np.concatenate([self._where[end][rows], found], axis=1)
        order = np.argsort(values if end else -values, axis=1, kind="stable")[:, : self._count]
        kept[rows] = np.take_along_axis(values, order, axis=1)
        self._where[end][rows] = np.take_along_axis(where, order[:, :, None], axis=1)

    def of(self, unit: int) -> tuple[tuple[Exemplar, ...], tuple[Exemplar, ...]]:
        """The most and the least active cases of a unit, the most extreme first."""
        return self._listed(0, self._top[unit], unit), self._listed(1, self._bottom[unit], unit)

    def _listed(self, end: int, values: NDArray[np.float64], unit: int) -> tuple[Exemplar, ...]:
        return tuple(
            Exemplar(
                case=self._cases[number],
                value=float(value),
                voxel=tuple(int(i) for i in np.unravel_index(place, self._shapes[number])),
            )
            for value, (number, place) in zip(values, self._where[end][unit], strict=True)
            if number >= 0
        )
