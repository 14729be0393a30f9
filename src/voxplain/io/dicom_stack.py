"""The planes of a DICOM series as one volume, sorted by position; refused if slices are missing."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.errors import InputError, VoxplainWarning
from voxplain.image import Grid
from voxplain.io.dicom_planes import DicomPlane

_SAME_POSITION = 1e-3
"""Millimeters."""
_TILT_DEGREES = 0.1
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def sort_planes(planes: Sequence[DicomPlane]) -> list[DicomPlane]:
    """The planes of one series in the order of their positions along the normal.

    Raises:
        InputError: If orientations, sizes or spacings differ, or positions are missing.
    """
    _require_alike(planes)
    first = planes[0]
    if len(planes) > 1 and (first.orientation is None or any(p.position is None for p in planes)):
        raise InputError(f"{len(planes)} images without positions in the patient are no volume")
    return sorted(planes, key=_height)


def of_series(planes: Sequence[DicomPlane], number: int | None) -> list[DicomPlane]:
    """The planes of one series.

    Args:
        planes: Of all files.
        number: ``SeriesNumber`` of the series; may be None if there is one series only.

    Raises:
        InputError: If there are several to choose from, or none has the number.
    """
    chosen = [plane for plane in planes if number in (None, plane.number)]
    counts = Counter((plane.number, plane.series) for plane in chosen)
    if len(counts) == 1:
        return chosen
    every = Counter((plane.number, plane.series) for plane in planes)
    numbers = [found for found, _ in every if found is not None]
    listed = ", ".join(
        f"{found} with {count} images" for (found, _), count in sorted(every.items(), key=str)
    )
    if not chosen:
        raise InputError(f"the folder holds no DICOM series number {number}; there are: {listed}")
    choice = f"say series= with a number ({listed}), or " if len(set(numbers)) == len(every) else ""
    raise InputError(
        f"the folder holds {len(counts)} DICOM series (the largest of {max(counts.values())} "
        f"images); {choice}give a folder with one of them"
    )


def without_copies(
    planes: Sequence[DicomPlane], pixels: Callable[[DicomPlane], NDArray[Any]]
) -> list[DicomPlane]:
    """Sorted planes, each once: of planes at one place with equal values the first is kept.

    Args:
        planes: Sorted by position.
        pixels: Reads the stored values of a plane.
    """
    kept: list[DicomPlane] = []
    for plane in planes:
        if not (kept and _is_copy(kept[-1], plane, pixels)):
            kept.append(plane)
    if len(kept) < len(planes):
        _warn(
            f"{len(planes) - len(kept)} images of the series are exact copies of others; each is "
            "used once"
        )
    return kept


def _is_copy(
    first: DicomPlane, second: DicomPlane, pixels: Callable[[DicomPlane], NDArray[Any]]
) -> bool:
    places = _position(first), _position(second)
    return (
        _close(*places, _SAME_POSITION)
        and (first.slope, first.intercept) == (second.slope, second.intercept)
        and bool(np.array_equal(pixels(first), pixels(second)))
    )


def volume_grid(planes: Sequence[DicomPlane]) -> Grid:
    """The grid ``(columns, rows, slices)`` of sorted planes, by their positions.

    A tilted gantry gives a sheared affine, which is right, and a warning.

    Raises:
        InputError: If slices are missing, repeated, or not evenly spaced.
    """
    first = planes[0]
    row, column, normal = _axes(first)
    row_spacing, column_spacing = first.spacing or (1.0, 1.0)
    step = normal * first.thickness if len(planes) == 1 else _step(planes, normal)
    affine = np.eye(4)
    axes = [row * column_spacing, column * row_spacing, step, _position(first)]
    affine[:3] = np.stack(axes, axis=1)
    rows, columns = first.size
    return _grid((columns, rows, len(planes)), affine, first)


def slice_grid(plane: DicomPlane) -> Grid:
    """The grid ``(rows, columns)`` of a single image."""
    row, column, normal = _axes(plane)
    row_spacing, column_spacing = plane.spacing or (1.0, 1.0)
    affine = np.eye(4)
    step = normal * plane.thickness
    axes = [column * row_spacing, row * column_spacing, step, _position(plane)]
    affine[:3] = np.stack(axes, axis=1)
    return _grid(plane.size, affine, plane)


def _grid(shape: tuple[int, ...], affine: NDArray[np.float64], plane: DicomPlane) -> Grid:
    code = 0 if plane.position is None or plane.orientation is None else 1
    unit = "pixel" if plane.spacing is None else "mm"
    return Grid(shape, _LPS_TO_RAS @ affine, unit=unit, code=code)  # type: ignore[arg-type]


def _require_alike(planes: Sequence[DicomPlane]) -> None:
    first = planes[0]
    for plane in planes[1:]:
        if plane.size != first.size:
            raise InputError(
                f"the series mixes images of {first.size} and {plane.size} rows and columns "
                "(a localizer among them?)"
            )
        if not _close(plane.spacing, first.spacing):
            raise InputError("the series mixes images of different pixel spacing")
        if not _close(plane.orientation, first.orientation, 1e-3):
            raise InputError(
                "the series mixes images in different planes (a localizer among them?)"
            )


def _close(
    first: NDArray[np.float64] | tuple[float, ...] | None,
    second: NDArray[np.float64] | tuple[float, ...] | None,
    tolerance: float = 1e-4,
) -> bool:
    if first is None or second is None:
        return first is second
    return bool(np.allclose(first, second, rtol=0, atol=tolerance))


def _axes(
    plane: DicomPlane,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Unit vectors along a row, along a column, and their normal, LPS."""
    axes = plane.orientation if plane.orientation is not None else np.eye(3)[:2]
    return axes[0], axes[1], np.cross(axes[0], axes[1])


def _position(plane: DicomPlane) -> NDArray[np.float64]:
    return plane.position if plane.position is not None else np.zeros(3)


def _height(plane: DicomPlane) -> float:
    return float(_axes(plane)[2] @ _position(plane))


def _step(planes: Sequence[DicomPlane], normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """The vector from one slice to the next, LPS mm."""
    positions = np.stack([_position(plane) for plane in planes])
    _require_even(positions @ normal)
    step = (positions[-1] - positions[0]) / (len(planes) - 1)
    residuals = positions - positions[0] - np.arange(len(planes))[:, None] * step
    sideways = np.linalg.norm(residuals - np.outer(residuals @ normal, normal), axis=1).max()
    if sideways > 0.1 * min(planes[0].spacing or (1.0, 1.0)):
        raise InputError(
            f"the slices of the series are shifted sideways by up to {sideways:.3g} mm"
        )
    tilt = math.degrees(math.acos(min(1.0, step @ normal / np.linalg.norm(step))))
    if tilt <= _TILT_DEGREES:
        return np.asarray((step @ normal) * normal)
    _warn(
        f"the gantry was tilted by {tilt:.1f} degrees: positions are right, but the network sees "
        "a sheared body"
    )
    return np.asarray(step)


def _require_even(heights: NDArray[np.float64]) -> None:
    gaps = np.diff(heights)
    repeated = int((gaps < _SAME_POSITION).sum())
    if repeated:
        raise InputError(
            f"the series has {repeated} slices at places where it has another already (several "
            "phases, echoes or copies?)"
        )
    spacing = float(np.median(gaps))
    missing = int(sum(round(gap / spacing) - 1 for gap in gaps if gap > 1.5 * spacing))
    if missing:
        place = int(np.argmax(gaps)) + 1
        raise InputError(
            f"the series lacks {missing} slices: slices {place} and {place + 1} lie "
            f"{gaps.max():.4g} mm apart, the others {spacing:.4g} mm"
        )
    even = heights[0] + np.arange(len(heights)) * (heights[-1] - heights[0]) / (len(heights) - 1)
    deviation = float(np.abs(heights - even).max()) / spacing
    text = f"the slices are not evenly spaced ({gaps.min():.4g} to {gaps.max():.4g} mm apart)"
    if deviation > 0.25:
        raise InputError(text)
    if deviation > 0.05:
        _warn(f"{text}; the mean is used")


def _warn(text: str) -> None:
    warnings.warn(text, VoxplainWarning, stacklevel=2)
