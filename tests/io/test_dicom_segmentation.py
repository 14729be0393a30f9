"""DICOM segmentations in: every frame at its own place, every segment with its own number."""

import numpy as np
import pydicom
import pytest
from pydicom.pixels import pack_bits
from pydicom.sequence import Sequence
from synthetic_dicom import GAP, NORMAL, ORIENTATION, ORIGIN, SPACING, write_series, write_slice

from voxplain.errors import InputError
from voxplain.image import Grid
from voxplain.io import read_image, read_mask

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
SHAPE = (6, 16, 9)  # Slices, rows, columns.


def mask(*boxes):
    values = np.zeros(SHAPE, np.uint8)
    for box in boxes:
        values[tuple(slice(*side) for side in box)] = 1
    return values


LESION = mask(((1, 2), (3, 8), (2, 7)), ((4, 6), (3, 8), (1, 5)))  # Apart, with empty slices.
OTHER = mask(((0, 3), (10, 14), (2, 6)))


def write_segmentation(path, segments, kind="BINARY", shift=0.0, **attributes):
    """Frames of the slices that hold something of each segment ``(slices, rows, columns)``."""
    frames, pixels = [], []
    for number, segment in enumerate(segments, 1):
        for index in np.flatnonzero(segment.any(axis=(1, 2))):
            group, place, which = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
            position = ORIGIN + index * NORMAL * GAP + shift * ORIENTATION[0]
            place.ImagePositionPatient = [float(f"{part:.6f}") for part in position]
            which.ReferencedSegmentNumber = number
            group.PlanePositionSequence = Sequence([place])
            group.SegmentIdentificationSequence = Sequence([which])
            frames.append(group)
            pixels.append(segment[index])
    shared, turn, size = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
    turn.ImageOrientationPatient = [float(f"{cosine:.9f}") for cosine in ORIENTATION.ravel()]
    size.PixelSpacing, size.SliceThickness = list(SPACING), GAP
    shared.PlaneOrientationSequence = Sequence([turn])
    shared.PixelMeasuresSequence = Sequence([size])
    stack = np.stack(pixels)
    data = write_slice(
        path, stack, SOPClassUID=SEGMENTATION, Modality="SEG", SegmentationType=kind,
        NumberOfFrames=len(stack), PixelSpacing=None, ImageOrientationPatient=None,
        RescaleSlope=None, RescaleIntercept=None, SliceThickness=None,
        PerFrameFunctionalGroupsSequence=Sequence(frames),
        SharedFunctionalGroupsSequence=Sequence([shared]), **attributes,
    )  # fmt: skip
    if kind == "BINARY":
        data.BitsAllocated = data.BitsStored = 1
        data.HighBit = 0
        data.PixelData = pack_bits(stack.ravel())
        data.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def grid(tmp_path):
    return read_image(write_series(tmp_path / "ct", np.zeros(SHAPE, np.int16))).grid


def test_lesions_apart_lie_where_their_frames_say(tmp_path, grid):
    path = write_segmentation(tmp_path / "seg.dcm", [LESION])
    np.testing.assert_array_equal(read_mask(path, grid), LESION.T)


def test_segments_are_labels_by_their_number(tmp_path, grid):
    path = write_segmentation(tmp_path / "seg.dcm", [LESION, OTHER])
    np.testing.assert_array_equal(read_mask(path, grid), (LESION + 2 * OTHER).T)


def test_an_image_in_another_axis_order_gets_its_segments_in_that_order(tmp_path, grid):
    turned = Grid(
        (grid.shape[2], grid.shape[0], grid.shape[1]),
        grid.sub((0, 0, grid.shape[2] - 1), (1, 1, -1), grid.shape).affine[:, [2, 0, 1, 3]],
    )
    path = write_segmentation(tmp_path / "seg.dcm", [LESION])
    expected = LESION.T[:, :, ::-1].transpose(2, 0, 1)
    np.testing.assert_array_equal(read_mask(path, turned), expected)


def test_one_slice_gets_the_part_of_the_segments_in_it(tmp_path):
    folder = write_series(tmp_path / "ct", np.zeros(SHAPE, np.int16), keep=[4])
    image = read_image(next(folder.iterdir()))
    path = write_segmentation(tmp_path / "seg.dcm", [LESION, OTHER])
    np.testing.assert_array_equal(read_mask(path, image.grid), LESION[4])


def test_fractions_are_refused_and_whole_fractions_are_labels(tmp_path, grid):
    full = {"kind": "FRACTIONAL", "MaximumFractionalValue": 200}
    path = write_segmentation(tmp_path / "whole.dcm", [LESION * 200], **full)
    np.testing.assert_array_equal(read_mask(path, grid), LESION.T)
    path = write_segmentation(tmp_path / "part.dcm", [LESION * 100], **full)
    with pytest.raises(InputError, match=r"part\.dcm is a FRACTIONAL segmentation"):
        read_mask(path, grid)


def test_overlap_another_grid_and_a_segment_outside_are_refused(tmp_path, grid):
    path = write_segmentation(tmp_path / "a.dcm", [LESION, LESION])
    with pytest.raises(InputError, match="overlap"):
        read_mask(path, grid)
    path = write_segmentation(tmp_path / "b.dcm", [LESION], shift=0.3)
    with pytest.raises(InputError, match="another grid"):
        read_mask(path, grid)
    smaller = grid.sub((0, 0, 0), (1, 1, 1), (9, 16, 5))
    with pytest.raises(InputError, match="reaches beyond"):
        read_mask(write_segmentation(tmp_path / "c.dcm", [LESION]), smaller)
    with pytest.raises(InputError, match="placed in the patient"):
        read_mask(tmp_path / "c.dcm", Grid.default(grid.shape, 1.0))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("start", [0, 1])
def test_a_segment_beyond_either_end_of_any_axis_is_refused(tmp_path, grid, axis, start):
    """In the order of the image: columns, rows, slices; the segment fills one voxel."""
    lone = np.zeros(SHAPE, np.uint8)
    lone[3, 7, 4] = 1
    path = write_segmentation(tmp_path / "seg.dcm", [lone])
    voxel, origin, shape = (4, 7, 3), [0, 0, 0], list(grid.shape)
    if start:
        origin[axis], shape[axis] = voxel[axis] + 1, grid.shape[axis] - voxel[axis] - 1
    else:
        shape[axis] = voxel[axis]
    with pytest.raises(InputError, match="reaches beyond"):
        read_mask(path, grid.sub(origin, (1, 1, 1), shape))
    shape[axis], origin[axis] = (shape[axis] + 1, origin[axis] - start)
    part = read_mask(path, grid.sub(origin, (1, 1, 1), shape))
    assert part.nonzero().tolist() == [[v - o for v, o in zip(voxel, origin, strict=True)]]
