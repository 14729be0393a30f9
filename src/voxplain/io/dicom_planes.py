"""Reading of DICOM headers through an allow-list: the place of each frame in the patient."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.errors import InputError, without_warnings
from voxplain.io.bounds import reading, require_bounded, require_inflated_bounded

# Only these attributes are parsed: no name, date, institution or description. The series UID only
# groups files and is not passed on.
_HEADER = (
    "SOPClassUID", "SeriesInstanceUID", "SeriesNumber", "Modality", "Rows", "Columns",
    "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "ImagePositionPatient",
    "ImageOrientationPatient", "PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing",
    "SliceThickness", "SpacingBetweenSlices", "RescaleSlope", "RescaleIntercept", "WindowCenter",
    "WindowWidth", "BurnedInAnnotation", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence", "ModalityLUTSequence", "SegmentationType",
    "MaximumFractionalValue", "PaletteColorLookupTableUID",
    *(f"{color}PaletteColorLookupTable{part}" for color in ("Red", "Green", "Blue")
      for part in ("Descriptor", "Data")),
    *(f"Segmented{color}PaletteColorLookupTableData" for color in ("Red", "Green", "Blue")),
)  # fmt: skip
_WITH_PIXELS = ("Image Storage", "Segmentation Storage", "RT Dose Storage", "Map Storage")
"""What the names of the object classes contain whose files hold an image."""
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


@dataclass(frozen=True, eq=False)
class DicomPlane:
    """One frame of a series, without its pixels.

    Attributes:
        file: The file with its pixels.
        frame: Number of the frame in the file.
        series: Identifier that the files of a series share; not for display.
        number: Number of the series in its study; None where there is none.
        size: Rows and columns.
        position: Center of the first pixel, LPS mm; None for a plain radiograph.
        orientation: Two unit vectors, LPS: toward the next column, toward the next row.
        spacing: Millimeters between rows and between columns; None where unknown.
        thickness: Slice thickness in mm, 1 where unknown.
        slope: Slope of the modality rescale.
        intercept: Intercept of the modality rescale.
        segment: Number of the segment that a frame of a segmentation shows; None otherwise.
    """

    file: Path
    frame: int
    series: str
    number: int | None
    size: tuple[int, int]
    position: NDArray[np.float64] | None
    orientation: NDArray[np.float64] | None
    spacing: tuple[float, float] | None
    thickness: float
    slope: float
    intercept: float
    segment: int | None = None


def read_planes(path: Path) -> list[DicomPlane]:
    """The frames of one file; none if it holds no image (such as a report).

    Raises:
        InputError: If the file is not DICOM, is damaged, or has frames without positions.
    """
    with reading(path):
        header = read_header(path)
        if "Rows" in header:
            return _planes(path, header)
        _require_no_image(path, header)
        return []


def read_header(path: Path, *more: str) -> Any:
    """The attributes of a file that are on the allow-list, and ``more``.

    Raises:
        InputError: If the file is not DICOM.
    """
    pydicom = _pydicom()
    # Values are parsed when they are first read. Warnings of pydicom may quote them.
    with without_warnings(), _DicomFile(path) as file:
        try:
            return pydicom.dcmread(
                file,
                stop_before_pixels=not more,
                specific_tags=[*_HEADER, *more],
                force=lacks_preamble(path),
            )
        except pydicom.errors.InvalidDicomError:
            raise InputError(f"{path.name} is not a DICOM file") from None


class _DicomFile(io.BufferedReader):
    """A file for pydicom, which reads to the end at once only what it inflates as a whole.

    Raises:
        InputError: If that is too much.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self._path = path

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        if size is None or size < 0:
            require_inflated_bounded(self._path, content)
        return content


def read_whole_header(path: Path) -> Any:
    """Every attribute of a file but its pixels, the patient's among them: for DICOM outputs alone.

    Raises:
        InputError: If the file cannot be read.
    """
    with reading(path), without_warnings(), _DicomFile(path) as file:
        return _pydicom().dcmread(file, stop_before_pixels=True, force=lacks_preamble(path))


def frame_attribute(header: Any, frame: int, name: str) -> Any:
    """The value of an attribute for one frame of a file, as it is written; None if there is none.

    Args:
        header: With the functional groups of the file, where it has any.
        frame: Number of the frame, from 0.
        name: Keyword of the attribute.
    """
    groups = header.get("PerFrameFunctionalGroupsSequence")
    shared = header.get("SharedFunctionalGroupsSequence") or []
    levels = [header] if groups is None else _levels(groups[frame], *shared, header)
    return _find(levels, name)


def is_dicom(path: Path) -> bool:
    """Whether a file has the preamble of DICOM files, or begins with the elements after it."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM" or lacks_preamble(path)


def lacks_preamble(path: Path) -> bool:
    """Whether a file begins with an element of group 2 or 8, as DICOM without a preamble does."""
    with path.open("rb") as file:
        start = file.read(132)
    if len(start) < 132 or start[128:] == b"DICM" or start[:2] not in (b"\2\0", b"\x08\0"):
        return False
    is_explicit = start[4:6].isalpha() and start[4:6].isupper()
    return start[3] == 0 and (is_explicit or int.from_bytes(start[4:8], "little") <= 64)


def read_pixels(path: Path) -> tuple[NDArray[Any], Any]:
    """The stored values of a file, decompressed, and its attributes on the allow-list.

    Returns:
        ``(frames, rows, columns)``, with a last axis for color.

    Raises:
        InputError: If the pixels cannot be decoded.
    """
    with reading(path), without_warnings():
        data = read_header(path, *_PIXELS)
        frames = int(data.get("NumberOfFrames") or 1)
        require_bounded(path, (frames, data.Rows, data.Columns, data.get("SamplesPerPixel") or 1))
        if "TransferSyntaxUID" not in data.file_meta:
            data.file_meta.TransferSyntaxUID = _plain_syntax(data)
        try:
            pixels = data.pixel_array
        except (NotImplementedError, RuntimeError) as error:
            raise InputError(
                f"{path.name}: its compression needs a decoder ({type(error).__name__}); "
                "pip install 'voxplain[dicom]'"
            ) from None
        return (pixels if frames > 1 else pixels[None]), data


def _plain_syntax(data: Any) -> str:
    """The transfer syntax of a file that does not state it: uncompressed, as it was parsed."""
    is_implicit, is_little = data.original_encoding
    if is_implicit:
        return "1.2.840.10008.1.2"
    return "1.2.840.10008.1.2.1" if is_little else "1.2.840.10008.1.2.2"


def _require_no_image(path: Path, header: Any) -> None:
    """Refuses a file of a class that holds an image, or of none, if its image is not there."""
    meta = getattr(header, "file_meta", {})
    kind = header.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID") or ""
    name = _pydicom().uid.UID(str(kind)).name
    if not kind or any(words in name for words in _WITH_PIXELS):
        raise InputError(
            f"{path.name} is damaged or cut off: its header ends before its image; copy it again, "
            "or take it out of the folder"
        )


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
        number=_whole(header.get("SeriesNumber")),
        size=(int(header.Rows), int(header.Columns)),
        position=_vector(levels, "ImagePositionPatient", 3),
        orientation=None if orientation is None else _unit(orientation.reshape(2, 3)),
        spacing=_spacing(levels),
        thickness=_number(levels, "SpacingBetweenSlices")
        or _number(levels, "SliceThickness")
        or 1.0,
        slope=_number(levels, "RescaleSlope") or 1.0,
        intercept=_number(levels, "RescaleIntercept") or 0.0,
        segment=_whole(_find(levels, "ReferencedSegmentNumber")),
    )


def _find(levels: list[Any], name: str) -> Any:
    for level in levels:
        if (value := level.get(name)) is not None:
            return value
    return None


def _number(levels: list[Any], name: str) -> float | None:
    value = _find(levels, name)
    return None if value is None or value == "" else float(value)


def _whole(value: Any) -> int | None:
    return None if value is None or value == "" else int(value)


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
