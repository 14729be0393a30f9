"""The series that objects are derived from: its patient, and the place of its frames."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from voxplain.errors import InputError, VoxplainWarning, without_warnings
from voxplain.io.dicom import read_stack
from voxplain.io.dicom_export.identity import uid
from voxplain.io.dicom_export.place import FramePlace
from voxplain.io.dicom_planes import DicomPlane, frame_attribute, read_whole_header

_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_REFERENCED = (
    *_NEEDED, "Rows", "Columns", "Modality", "ImageType", "LossyImageCompression",
    "LossyImageCompressionRatio", "LossyImageCompressionMethod",
)  # fmt: skip
_OF_PATIENT = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
    "StudyDate", "StudyTime", "ReferringPhysicianName",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class SourceSeries:
    """A series with everything that objects take over from it.

    Attributes:
        header: All attributes of its first image, with the patient and the study.
        images: One data set per file with what a reference to it needs, without the patient.
        place: Of its frames, in the order of the slices of the image that was read from it.
    """

    header: Any
    images: Sequence[Any]
    place: FramePlace

    @property
    def series(self) -> str:
        """The UID of the series."""
        return str(self.header.SeriesInstanceUID)

    @property
    def study(self) -> str:
        """The UID of the study."""
        return str(self.header.StudyInstanceUID)

    def with_plane(self) -> SourceSeries:
        """The same; an image without a place gets one, in a frame of reference of its own."""
        if self.place.positions is not None:
            return self
        axes = [
            _DIRECTIONS.get(str(axis)[:1]) for axis in self.header.get("PatientOrientation", ())
        ]
        row, column = axes if len(axes) == 2 and all(axes) else (_DIRECTIONS["L"], _DIRECTIONS["F"])
        place = replace(
            self.place,
            positions=[(0.0, 0.0, 0.0)],
            orientation=[*(row or ()), *(column or ())],
            spacing=self.place.spacing or (1.0, 1.0),
        )
        image = copy.deepcopy(self.images[0])
        _put(image, uid(self.series, "plane"), place)
        return replace(self, images=[image], place=place)


_DIRECTIONS = {
    "L": (1.0, 0.0, 0.0), "R": (-1.0, 0.0, 0.0), "P": (0.0, 1.0, 0.0), "A": (0.0, -1.0, 0.0),
    "H": (0.0, 0.0, 1.0), "F": (0.0, 0.0, -1.0),
}  # fmt: skip
"""Of the patient, in LPS, by their letter."""


def read_source(path: Path, series: int | None = None) -> SourceSeries:
    """The series that :func:`voxplain.io.read_image` makes an image of.

    Args:
        path: Folder or file.
        series: Number of the series, for folders that hold several.

    Raises:
        InputError: If there is no such series, or it lacks what a reference to it needs.
    """
    with without_warnings(VoxplainWarning):  # said when the image was read
        stack = read_stack(path, series)
    headers = {plane.file: read_whole_header(plane.file) for plane in stack}
    first = headers[stack[0].file]
    for file, header in headers.items():
        _require(file, header, _NEEDED)
    if stack[0].position is not None and stack[0].orientation is not None:
        _require(stack[0].file, first, ("FrameOfReferenceUID",))
    first.decode()
    place = _place(stack, headers)
    return SourceSeries(first, _images(stack, headers, place), place)


def _require(file: Path, header: Any, names: Sequence[str]) -> None:
    lacking = [name for name in names if not header.get(name)]
    if lacking:
        raise InputError(
            f"{file.name} has no {lacking[0]}, which objects that refer to it need; take the "
            "series from the archive again"
        )


def _place(stack: Sequence[DicomPlane], headers: dict[Path, Any]) -> FramePlace:
    """The place of the frames, in the numbers that the files state."""

    def stated(plane: DicomPlane, name: str) -> Any:
        return frame_attribute(headers[plane.file], plane.frame, name)

    first = stack[0]
    thickness = stated(first, "SliceThickness") or first.thickness
    if first.position is None or first.orientation is None:
        return FramePlace(None, (), first.spacing, float(thickness))
    if first.spacing is None:
        raise InputError(f"{first.file.name} states no distance between its pixels")
    positions = [list(stated(plane, "ImagePositionPatient")) for plane in stack]
    ends = np.array([positions[0], positions[-1]], dtype=np.float64)
    normal = np.cross(*first.orientation)
    gap = float((ends[1] - ends[0]) @ normal) / (len(stack) - 1) if len(stack) > 1 else None
    orientation = list(stated(first, "ImageOrientationPatient"))
    return FramePlace(positions, orientation, first.spacing, float(thickness), gap)


def _images(
    stack: Sequence[DicomPlane], headers: dict[Path, Any], place: FramePlace
) -> Sequence[Any]:
    """What is referred to: each file as highdicom expects it, its place stated in one way."""
    from pydicom.uid import UID

    first = headers[stack[0].file]
    if "NumberOfFrames" not in first:
        return [_image(plane, headers[plane.file], first, place) for plane in stack]
    if len(headers) > 1:
        name = UID(str(first.SOPClassUID)).name
        raise InputError(
            f"the series has {len(headers)} files of several frames each ({name}), and an object "
            "can be derived from one"
        )
    return [_several_frames(first, place)]


def _image(plane: DicomPlane, header: Any, first: Any, place: FramePlace) -> Any:
    image = _reference(header)
    if place.positions is not None:
        position = frame_attribute(header, plane.frame, "ImagePositionPatient")
        _put(image, first.FrameOfReferenceUID, replace(place, positions=[position]))
    elif place.spacing is not None:
        image.PixelSpacing = list(place.spacing)
    return image


def _several_frames(header: Any, place: FramePlace) -> Any:
    image = _reference(header)
    image.NumberOfFrames = count = int(header.get("NumberOfFrames") or 1)
    image.SharedFunctionalGroupsSequence = [_group("PixelMeasuresSequence")]
    image.PerFrameFunctionalGroupsSequence = [_group() for _ in range(count)]
    if place.positions is not None:
        numbers = range(count)
        positions = [frame_attribute(header, n, "ImagePositionPatient") for n in numbers]
        _put(image, header.FrameOfReferenceUID, replace(place, positions=positions))
    return image


def _put(image: Any, frame_of_reference: str, place: FramePlace) -> None:
    """States the place of an image, in functional groups where it has several frames."""
    image.FrameOfReferenceUID = frame_of_reference
    measures = image
    if "NumberOfFrames" in image:
        shared, frames = image.SharedFunctionalGroupsSequence[0], place.positions or ()
        shared.PlaneOrientationSequence = [_group(ImageOrientationPatient=[*place.orientation])]
        shared.PixelMeasuresSequence = [_group()]
        measures = shared.PixelMeasuresSequence[0]
        for group, position in zip(image.PerFrameFunctionalGroupsSequence, frames, strict=True):
            group.PlanePositionSequence = [_group(ImagePositionPatient=[*position])]
    else:
        (position,) = place.positions or ()
        image.ImagePositionPatient = [*position]
        image.ImageOrientationPatient = [*place.orientation]
    measures.PixelSpacing = list(place.spacing or ())
    measures.SliceThickness = place.thickness


def _group(*empty: str, **attributes: Any) -> Any:
    """A data set with some sequences, which are empty, and some attributes."""
    from pydicom import Dataset

    group = Dataset()
    for name, value in {**{name: [] for name in empty}, **attributes}.items():
        setattr(group, name, value)
    return group


def _reference(header: Any) -> Any:
    """What a reference needs; the patient is left empty and copied whole when all is done."""
    from pydicom import Dataset

    image = Dataset()
    for name in _OF_PATIENT:
        setattr(image, name, "")
    for name in _REFERENCED:
        if name in header:
            image[name] = header[name]
    return image
