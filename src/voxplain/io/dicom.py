"""Reading of DICOM: a series or a single file, as values in source units on an RAS+ grid."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.errors import InputError, VoxplainWarning
from voxplain.io.dicom_planes import DicomPlane, is_dicom, read_pixels, read_planes
from voxplain.io.dicom_stack import (
    of_series,
    slice_grid,
    sort_planes,
    volume_grid,
    without_copies,
)
from voxplain.io.raw import RawImage

_SUFFIXES = (".dcm", ".dicom", ".ima")
# Values of these modalities are quantities, independent of the gray values on a display.
_QUANTITATIVE = ("CT", "PT", "NM", "MR")
_MAY_CARRY_TEXT = ("US", "IVUS", "CR", "DX", "MG", "RG", "RF", "XA", "SC", "OT", "XC")
_MODALITIES = (*_QUANTITATIVE, *_MAY_CARRY_TEXT, "OP", "OPT", "ES", "GM", "SM", "BMD", "IO", "PX")


def read_dicom(path: Path, rank: int | None, series: int | None = None) -> RawImage:
    """A series in a folder, or one file, rescaled, with MONOCHROME1 inverted, on an RAS+ grid.

    A series becomes ``(columns, rows, slices)``, as NIfTI converters store it; a single image
    becomes ``(rows, columns)``, as pictures, unless ``rank`` is 3.

    Args:
        path: Folder or file.
        rank: Number of spatial axes; None for 3 if there are several slices.
        series: Number of the series, for folders that hold several.

    Raises:
        InputError: If there is no series or more than one, files are cut off, or slices are
            missing, or repeated with other values.
    """
    stack = read_stack(path, series)
    if len(stack) == 1 and rank != 3:
        return _image(stack[0])
    if rank == 2:
        raise InputError(f"{path.name} has rank 3 ({len(stack)} slices), and rank 2 was requested")
    grid = volume_grid(stack)
    values, header = _values(stack)
    if values.ndim == 4:
        raise InputError(f"{path.name} is a color series; give single images")
    return RawImage(values.T[None], grid, _facts(header, len(stack)))


def read_stack(path: Path, series: int | None = None) -> list[DicomPlane]:
    """The planes of which :func:`read_dicom` makes an image, in the order of its slices.

    Raises:
        InputError: If there is no series or more than one, or files are cut off.
    """
    planes = sort_planes(of_series(_planes(path), series))
    return without_copies(planes, _pixels_of)


def series_numbers(path: Path) -> list[int]:
    """The numbers of the series in a folder, each once.

    Raises:
        InputError: If it holds no images.
    """
    return sorted({plane.number for plane in _planes(path) if plane.number is not None})


def _image(plane: DicomPlane) -> RawImage:
    values, header = _values([plane])
    is_color = values.ndim == 4
    data = np.moveaxis(values[0], -1, 0) if is_color else values
    names = ("red", "green", "blue") if is_color else ()
    return RawImage(data, slice_grid(plane), _facts(header, 1), names)


def _planes(path: Path) -> list[DicomPlane]:
    entries = sorted(path.iterdir()) if path.is_dir() else [path]
    _require_no_empty(entries)
    files = [entry for entry in entries if entry.is_file() and _looks_like_dicom(entry)]
    planes = [plane for file in files for plane in read_planes(file)]
    if not planes:
        has_folders = any(entry.is_dir() for entry in entries)
        hint = " itself; give the folder inside it that holds the slices" if has_folders else ""
        raise InputError(f"{path.name} holds no DICOM images{hint}")
    return planes


def _require_no_empty(entries: Sequence[Path]) -> None:
    """A slice of which nothing was copied may have no suffix either."""
    for entry in entries:
        is_slice = entry.suffix.lower() in ("", *_SUFFIXES) and not entry.name.startswith(".")
        if is_slice and entry.is_file() and not entry.stat().st_size:
            raise InputError(f"{entry.name} is empty; copy it again, or take it out of the folder")


def _pixels_of(plane: DicomPlane) -> NDArray[Any]:
    values: NDArray[Any] = read_pixels(plane.file)[0][plane.frame]
    return values


def _looks_like_dicom(file: Path) -> bool:
    return file.suffix.lower() in _SUFFIXES or is_dicom(file)


def _values(stack: Sequence[DicomPlane]) -> tuple[NDArray[np.float32], Any]:
    """Rescaled values ``(slices, rows, columns)``, with a last axis for color, and one header."""
    slices: list[NDArray[np.float32]] = []
    current: Path | None = None
    for plane in stack:
        if plane.file != current:
            stored, header = read_pixels(plane.file)
            current = plane.file
        slices.append(_source_values(stored[plane.frame], header, plane))
    return np.stack(slices), header


def _source_values(stored: NDArray[Any], header: Any, plane: DicomPlane) -> NDArray[np.float32]:
    """Values in source units, inverted where small ones are displayed bright."""
    if str(header.get("PhotometricInterpretation", "")).startswith("PALETTE"):
        return np.asarray(_pixel_functions().apply_color_lut(stored, header), dtype=np.float32)
    if header.get("ModalityLUTSequence"):
        values = _pixel_functions().apply_modality_lut(stored, header).astype(np.float64)
        bits = int(header.ModalityLUTSequence[0].LUTDescriptor[2])
        values = 2**bits - 1 - values if _is_inverted(header) else values
        return np.asarray(values, dtype=np.float32)
    values = np.asarray(stored, dtype=np.float64)
    if _is_inverted(header):
        values = _ends(header) - values
    return np.asarray(values * plane.slope + plane.intercept, dtype=np.float32)


def _is_inverted(header: Any) -> bool:
    is_quantity = str(header.get("Modality", "")) in _QUANTITATIVE
    return header.get("PhotometricInterpretation") == "MONOCHROME1" and not is_quantity


def _ends(header: Any) -> float:
    """The sum of the smallest and the largest value that can be stored."""
    return -1.0 if header.PixelRepresentation else 2.0 ** int(header.BitsStored) - 1


def _pixel_functions() -> Any:
    from pydicom import pixels

    return pixels


def _facts(header: Any, slices: int) -> dict[str, Any]:
    """Facts of a header without identity; warns where text may be burned into the pixels."""
    # Only a code of the standard is taken, as the attribute may hold any text.
    modality = next((code for code in _MODALITIES if code == header.get("Modality")), "unknown")
    if modality in _MAY_CARRY_TEXT and str(header.get("BurnedInAnnotation")) != "NO":
        warnings.warn(
            "text burned into the pixels (a name, a date) cannot be detected reliably; look at the "
            "image, and crop such margins",
            VoxplainWarning,
            stacklevel=2,
        )
    facts: dict[str, Any] = {"format": "DICOM", "modality": modality, "slices": slices}
    if modality == "CT":
        facts["unit"] = "HU"
    center, width = _first(header.get("WindowCenter")), _first(header.get("WindowWidth"))
    if center is not None and width is not None:
        low, high = center - width / 2, center + width / 2
        if _is_inverted(header):
            turn = _mirror(header)
            low, high = turn - high, turn - low
        facts["window"] = [low, high]
    return facts


def _mirror(header: Any) -> float:
    """What a value and its inverted value add up to, in source units."""
    if header.get("ModalityLUTSequence"):
        return float(2 ** int(header.ModalityLUTSequence[0].LUTDescriptor[2]) - 1)
    slope = _first(header.get("RescaleSlope")) or 1.0
    return slope * _ends(header) + 2 * (_first(header.get("RescaleIntercept")) or 0.0)


def _first(value: Any) -> float | None:
    """The first of possibly several numbers; None if it is no number."""
    values = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    try:
        return float(values[0])
    except (IndexError, TypeError, ValueError):
        return None
