"""DICOM segmentations as label masks: each frame is placed by its own position."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.errors import InputError
from voxplain.image import Grid
from voxplain.io.dicom_planes import DicomPlane, is_dicom, read_header, read_pixels, read_planes
from voxplain.io.dicom_stack import slice_grid

_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_TOLERANCE = 0.05
"""Voxels."""

Labels = NDArray[np.int64]


def is_segmentation(path: Path) -> bool:
    """Whether a file is a DICOM segmentation."""
    return is_dicom(path) and read_header(path).get("SOPClassUID") in _CLASSES


def read_segmentation(path: Path, grid: Grid) -> Labels:
    """The segments of a segmentation on the grid of an image, each with its number as label.

    Frames without a segment may be left out of the file, and lesions may lie apart.

    Args:
        path: The segmentation.
        grid: Grid of the image. In 2-D, what lies in other slices is left out.

    Returns:
        ``(*spatial)``.

    Raises:
        InputError: If values are fractional, segments overlap, or a segment reaches beyond the
            image or lies between its voxels, or
            the image has no place in the patient.
    """
    if not grid.code or grid.unit == "pixel":
        raise InputError(f"{path.name} is placed in the patient, and the image is not")
    stored, header = read_pixels(path)
    labels = np.zeros(grid.shape, np.int64)
    values = _whole(path, stored, header)
    is_label_map = header.get("SegmentationType") == "LABELMAP"
    for plane in read_planes(path):
        numbers = values[plane.frame].astype(np.int64)
        if not is_label_map:
            numbers *= _number(path, plane)
        if numbers.any():
            _place(path, labels, numbers, grid, plane)
    return labels


def _whole(path: Path, stored: NDArray[Any], header: Any) -> NDArray[Any]:
    """Segment numbers, or 1 inside of the segment of a frame."""
    if header.get("SegmentationType") != "FRACTIONAL":
        return stored
    full = int(header.get("MaximumFractionalValue") or 255)
    if not np.isin(stored, (0, full)).all():
        raise InputError(
            f"{path.name} is a FRACTIONAL segmentation with values between 0 and 1, and a mask "
            "holds whole labels; save it as BINARY, with a threshold of your choice"
        )
    return np.asarray(stored == full)


def _number(path: Path, plane: DicomPlane) -> int:
    if plane.segment is None:
        raise InputError(f"{path.name} does not say which segment frame {plane.frame + 1} shows")
    return plane.segment


def _place(path: Path, labels: Labels, numbers: Labels, grid: Grid, plane: DicomPlane) -> None:
    """Writes the labels of one frame ``(rows, columns)`` into the mask."""
    pixels = np.argwhere(numbers)
    index = _image_index(grid, slice_grid(plane).world(pixels))
    if grid.rank == 2:
        if np.abs(index[:, 2]).max() >= 0.5:
            return
        index = index[:, :2]
    voxels = np.floor(index + 0.5).astype(np.int64)
    if np.abs(index - voxels).max() > _TOLERANCE:
        raise InputError(
            f"the segmentation {path.name} is on another grid than the image ({grid}); resample it "
            "to the image"
        )
    if (voxels < 0).any() or (voxels >= grid.shape).any():
        raise InputError(f"the segmentation {path.name} reaches beyond the image ({grid})")
    place = tuple(voxels.T)
    values = numbers[tuple(pixels.T)]
    if (labels[place] != 0).any():
        raise InputError(
            f"{path.name} has segments that overlap, and a mask holds one label per voxel; save "
            "them as files of their own"
        )
    labels[place] = values


def _image_index(grid: Grid, world: NDArray[np.float64]) -> NDArray[np.float64]:
    inverse = np.linalg.inv(grid.affine)
    return np.asarray(world @ inverse[:3, :3].T + inverse[:3, 3])
