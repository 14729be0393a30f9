"""Anatomical planes and projections of a canonical volume, in radiological convention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Plane:
    """An anatomical plane: the axis that it is perpendicular to, and the letters at its four sides.

    Radiological convention: the patient's right is at the left of the picture, front and top are
    up, and sagittal planes look to the left.
    """

    name: str
    axis: int
    coordinate: str
    left: str
    right: str
    top: str
    bottom: str

    def show(self, canonical: Array) -> Array:
        """A plane of a canonical (right, front, top) volume as displayed ``(rows, columns)``."""
        return canonical.T[::-1, ::-1]

    def cut(self, volume: Array, index: int) -> Array:
        """The plane at an index along its axis, as displayed ``(rows, columns)``."""
        return self.show(np.moveaxis(volume, self.axis, 0)[index])

    def pixel(self, index: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, int]:
        """``(row, column)`` on the displayed plane of a voxel index."""
        across, up = self.axes
        return shape[up] - 1 - index[up], shape[across] - 1 - index[across]

    @property
    def sides(self) -> tuple[str, str, str, str]:
        """The letters at the left, right, top and bottom."""
        return self.left, self.right, self.top, self.bottom

    @property
    def convention(self) -> str:
        """Which side of the patient is at the left, in words."""
        return f"patient's {'right' if self.left == 'R' else 'front'} at the left"

    @property
    def axes(self) -> tuple[int, int]:
        """The axes of the volume that run across and up the displayed plane."""
        across, up = (axis for axis in range(3) if axis != self.axis)
        return across, up


AXIAL = Plane("axial", 2, "z", "R", "L", "A", "P")
CORONAL = Plane("coronal", 1, "y", "R", "L", "S", "I")
SAGITTAL = Plane("sagittal", 0, "x", "A", "P", "S", "I")
PLANES = (AXIAL, CORONAL, SAGITTAL)


def plane_of(shape: tuple[int, ...]) -> Plane:
    """The plane of a 2-D image of a patient: the one perpendicular to its axis of length one."""
    thin = [axis for axis, size in enumerate(shape) if size == 1]
    return next(plane for plane in PLANES if plane.axis == thin[-1])


def signed_projection(values: Array, axis: int) -> Array:
    """The value of the largest magnitude along one axis, with its sign."""
    high, low = np.fmax.reduce(values, axis=axis), np.fmin.reduce(values, axis=axis)
    return np.nan_to_num(np.where(-low > high, low, high))
