"""Reading of DICOM: a series or a single file, as values in source units on an RAS+ grid."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.errors import InputError, VoxplainWarning
from voxplain.io.dicom_planes import DicomPlane, read_pixels, read_planes
from voxplain.io.dicom_stack import slice_grid, sort_planes, volume_grid
from voxplain.io.raw import RawImage

_SUFFIXES = (".dcm", ".dicom", ".ima")
# Values of these modalities are quantities, independent of the gray values on a display.
_QUANTITATIVE = ("CT", "PT", "NM", "MR")
_MAY_CARRY_TEXT = ("US", "IVUS", "CR", "DX", "MG", "RG", "RF", "XA", "SC", "OT", "XC")
_MODALITIES = (*_QUANTITATIVE, *_MAY_CARRY_TEXT, "OP", "OPT", "ES", "GM", "SM", "BMD", "IO", "PX")


def is_dicom(path: Path) -> bool:
    """Whether a file has the preamble of DICOM files."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def read_dicom(path: Path, rank: int | None) -> RawImage:
    """A series in a folder, or one file, rescaled, with MONOCHROME1 inverted, on an RAS+ grid.

    A series becomes ``(columns, rows, slices)``, as NIfTI converters store it; a single image
    becomes ``(rows, columns)``, as pictures, unless ``rank`` is 3.

    Args:
        path: Folder or file.
        rank: Number of spatial axes; None for 3 if there are several slices.

    Raises:
        InputError: If there is no series or more than one, or slices are missing or repeated.
    """
    stack = sort_planes(_planes(path))
    if len(stack) == 1 and rank != 3:
        return _image(stack[0])
    if rank == 2:
        raise InputError(f"{path.name} has rank 3 ({len(stack)} slices), and rank 2 was requested")
    grid = volume_grid(stack)
    values, header = _values(stack)
    if values.ndim == 4:
        raise InputError(f"{path.name} is a color series; give single images")
    return RawImage(values.T[None], grid, _facts(header, len(stack)))


def _image(plane: DicomPlane) -> RawImage:
    values, header = _values([plane])
    is_color = values.ndim == 4
    data = np.moveaxis(values[0], -1, 0) if is_color else values
    names = ("red", "green", "blue") if is_color else ()
    return RawImage(data, slice_grid(plane), _facts(header, 1), names)


def _planes(path: Path) -> list[DicomPlane]:
    entries = sorted(path.iterdir()) if path.is_dir() else [path]
    files = [entry for entry in entries if entry.is_file() and _looks_like_dicom(entry)]
    planes = [plane for file in files for plane in read_planes(file)]
    if not planes:
        has_folders = any(entry.is_dir() for entry in entries)
        hint = " itself; give the folder inside it that holds the slices" if has_folders else ""
        raise InputError(f"{path.name} holds no DICOM images{hint}")
    return planes


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
        values = _bright_is_large(stored[plane.frame], header)
        slices.append((values * plane.slope + plane.intercept).astype(np.float32))
    return np.stack(slices), header


def _bright_is_large(stored: NDArray[Any], header: Any) -> NDArray[Any]:
    """Stored values as float64, inverted where small values are displayed bright."""
    photometric = str(header.get("PhotometricInterpretation", ""))
    if photometric.startswith("PALETTE"):
        raise InputError("DICOM images with a color palette are not supported; convert to RGB")
    values = stored.astype(np.float64)
    if photometric != "MONOCHROME1" or str(header.get("Modality", "")) in _QUANTITATIVE:
        return values
    span = 2 ** int(header.BitsStored) - 1
    return (-1.0 if header.PixelRepresentation else span) - values


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
        facts["window"] = [center - width / 2, center + width / 2]
    return facts


def _first(value: Any) -> float | None:
    """The first of possibly several numbers; None if it is no number."""
    values = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    try:
        return float(values[0])
    except (IndexError, TypeError, ValueError):
        return None
