"""Reading of DICOM headers through an allow-list: the place of each frame in the patient."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.errors import InputError, without_warnings

# Only these attributes are parsed: no name, date, institution or description. The series UID only
# groups files and is not passed on.
_HEADER = (
    "SOPClassUID", "SeriesInstanceUID", "Modality", "Rows", "Columns", "NumberOfFrames",
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "BitsAllocated",
    "BitsStored", "HighBit", "PixelRepresentation", "ImagePositionPatient",
    "ImageOrientationPatient", "PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing",
    "SliceThickness", "SpacingBetweenSlices", "RescaleSlope", "RescaleIntercept", "WindowCenter",
    "WindowWidth", "BurnedInAnnotation", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)  # fmt: skip
_DAMAGED = (AttributeError, EOFError, KeyError, OSError, TypeError, ValueError)
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


@dataclass(frozen=True, eq=False)
class DicomPlane:
    """One frame of a series, without its pixels.

    Attributes:
        file: The file with its pixels.
        frame: Number of the frame in the file.
        series: Identifier that the files of a series share; not for display.
        size: Rows and columns.
        position: Center of the first pixel, LPS mm; None for a plain radiograph.
        orientation: Two unit vectors, LPS: toward the next column, toward the next row.
        spacing: Millimeters between rows and between columns; None where unknown.
        thickness: Slice thickness in mm, 1 where unknown.
        slope: Slope of the modality rescale.
        intercept: Intercept of the modality rescale.
    """

    file: Path
    frame: int
    series: str
    size: tuple[int, int]
    position: NDArray[np.float64] | None
    orientation: NDArray[np.float64] | None
    spacing: tuple[float, float] | None
    thickness: float
    slope: float
    intercept: float


def read_planes(path: Path) -> list[DicomPlane]:
    """The frames of one file; none if it holds no image (such as a report).

    Raises:
        InputError: If the file is not DICOM, is damaged, or has frames without positions.
    """
    pydicom = _pydicom()
    try:
        # Values are parsed when they are first read. Warnings of pydicom may quote them.
        with without_warnings():
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_HEADER))
            return _planes(path, header) if "Rows" in header else []
    except pydicom.errors.InvalidDicomError:
        raise InputError(f"{path.name} is not a DICOM file") from None
    except _DAMAGED as error:
        raise InputError(f"{path.name} is a damaged DICOM file ({type(error).__name__})") from None


def read_pixels(path: Path) -> tuple[NDArray[Any], Any]:
    """The stored values of a file, decompressed, and its attributes on the allow-list.

    Returns:
        ``(frames, rows, columns)``, with a last axis for color.

    Raises:
        InputError: If the pixels cannot be decoded.
    """
    pydicom = _pydicom()
    try:
        with without_warnings():
            data = pydicom.dcmread(path, specific_tags=[*_HEADER, *_PIXELS])
            pixels = data.pixel_array
            return (pixels if int(data.get("NumberOfFrames") or 1) > 1 else pixels[None]), data
    except (NotImplementedError, RuntimeError) as error:
        raise InputError(
            f"{path.name}: its compression needs a decoder ({type(error).__name__}); "
            "pip install 'voxplain[dicom]'"
        ) from None
    except _DAMAGED as error:
        raise InputError(
            f"{path.name} is damaged or cut off: its pixels cannot be read ({type(error).__name__})"
        ) from None


def _planes(path: Path, header: Any) -> list[DicomPlane]:
    count = int(header.get("NumberOfFrames") or 1)
    groups = header.get("PerFrameFunctionalGroupsSequence")
    if groups is None and count > 1:
        raise InputError(f"{path.name} holds {count} frames without positions (a cine loop?)")
    if groups is None:
        return [_plane(path, 0, header, [header])]
    shared = header.get("SharedFunctionalGroupsSequence") or []
    frames = enumerate(groups)
    return [_plane(path, index, header, _levels(group, *shared, header)) for index, group in frames]


def _levels(*groups: Any) -> list[Any]:
    """Data sets in which to look attributes up: groups of the frame, shared groups, the file."""
    nested = [
        item for group in groups[:-1] for element in group if element.VR == "SQ" for item in element
    ]
    return [*nested, groups[-1]]


def _plane(path: Path, frame: int, header: Any, levels: list[Any]) -> DicomPlane:
    orientation = _vector(levels, "ImageOrientationPatient", 6)
    return DicomPlane(
        file=path,
        frame=frame,
        series=str(header.get("SeriesInstanceUID", "")),
        size=(int(header.Rows), int(header.Columns)),
        position=_vector(levels, "ImagePositionPatient", 3),
        orientation=None if orientation is None else _unit(orientation.reshape(2, 3)),
        spacing=_spacing(levels),
        thickness=_number(levels, "SpacingBetweenSlices")
        or _number(levels, "SliceThickness")
        or 1.0,
        slope=_number(levels, "RescaleSlope") or 1.0,
        intercept=_number(levels, "RescaleIntercept") or 0.0,
    )


def _find(levels: list[Any], name: str) -> Any:
    for level in levels:
        if (value := level.get(name)) is not None:
            return value
    return None


def _number(levels: list[Any], name: str) -> float | None:
    value = _find(levels, name)
    return None if value is None or value == "" else float(value)


def _vector(levels: list[Any], name: str, size: int) -> NDArray[np.float64] | None:
    value = _find(levels, name)
    if value is None or len(value) != size:
        return None
    return np.array([float(number) for number in value])


def _unit(axes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(axes / np.linalg.norm(axes, axis=1, keepdims=True))


def _spacing(levels: list[Any]) -> tuple[float, float] | None:
    for name in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        spacing = _vector(levels, name, 2)
        if spacing is not None and (spacing > 0).all():
            return float(spacing[0]), float(spacing[1])
    return None


def _pydicom() -> ModuleType:
    try:
        import pydicom
    except ImportError:
        raise InputError("reading DICOM needs pydicom; pip install 'voxplain[dicom]'") from None
    module: ModuleType = pydicom
    return module
