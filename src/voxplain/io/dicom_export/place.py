"""Where the frames of an object lie in the patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.grid import Grid

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True, eq=False)
class FramePlace:
    """The place of frames, in LPS mm.

    Attributes:
        positions: Of the center of the first pixel of each frame, three numbers; None where the
            source has no place in the patient, as a plain radiograph.
        orientation: Unit vectors toward the next column and toward the next row, six numbers.
        spacing: Between rows and between columns; None where it is unknown.
        thickness: Of a slice.
        gap: Between slices; None for one frame.
    """

    positions: Sequence[Sequence[Any]] | None
    orientation: Sequence[Any]
    spacing: tuple[float, float] | None
    thickness: float
    gap: float | None = None

    @classmethod
    def of_grid(cls, grid: Grid) -> FramePlace:
        """The place of the frames of an array on a grid, see :func:`frames_of`."""
        steps = _RAS_TO_LPS @ grid.affine[:3, :3]
        start = _RAS_TO_LPS @ grid.affine[:3, 3]
        column, row = (steps[:, 1], steps[:, 0]) if grid.rank == 2 else (steps[:, 0], steps[:, 1])
        lengths = np.linalg.norm(row), np.linalg.norm(column)
        count = 1 if grid.rank == 2 else grid.shape[2]
        thickness = float(np.linalg.norm(steps[:, 2]))
        return cls(
            positions=[list(start + index * steps[:, 2]) for index in range(count)],
            orientation=[*(column / lengths[1]), *(row / lengths[0])],
            spacing=(float(lengths[0]), float(lengths[1])),
            thickness=thickness,
            gap=thickness if count > 1 else None,
        )

    def facts(self) -> dict[str, Any]:
        """The same as arguments of highdicom."""
        import highdicom

        found: dict[str, Any] = {}
        if self.spacing is not None:
            found["pixel_measures"] = highdicom.PixelMeasuresSequence(
                self.spacing, self.thickness, self.gap
            )
        if self.positions is not None:
            patient = highdicom.CoordinateSystemNames.PATIENT
            found["plane_orientation"] = highdicom.PlaneOrientationSequence(
                patient, [float(value) for value in self.orientation]
            )
            found["plane_positions"] = [
                highdicom.PlanePositionSequence(patient, [float(value) for value in position])
                for position in self.positions
            ]
        return found


def frames_of(values: NDArray[Any]) -> NDArray[Any]:
    """An array as :func:`voxplain.io.read_image` reads a series, as frames.

    Args:
        values: ``(columns, rows, slices)``, or ``(rows, columns)`` of a single image.

    Returns:
        ``(frames, rows, columns)``.
    """
    return np.ascontiguousarray(values[None] if values.ndim == 2 else values.T)
