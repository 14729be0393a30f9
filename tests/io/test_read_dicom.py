"""Reading DICOM: geometry against an affine computed by hand, and errors of series."""

import math

import numpy as np
import pytest
from synthetic_dicom import (
    GAP,
    NORMAL,
    ORIENTATION,
    known_affine,
    write_enhanced,
    write_series,
    write_slice,
)

from voxplain.errors import InputError, VoxplainWarning
from voxplain.io import read_image

VALUES = np.random.default_rng(1).integers(0, 2000, (6, 5, 4), dtype=np.int16)


def test_oblique_anisotropic_series_in_reverse_order_lies_on_the_known_affine(tmp_path):
    image = read_image(write_series(tmp_path / "series", VALUES))
    np.testing.assert_allclose(image.grid.affine, known_affine(), atol=1e-5)
    assert image.grid.shape == (4, 5, 6)
    # Slice thickness is 5 mm in the header, and the slices lie 2.5 mm apart.
    np.testing.assert_allclose(image.grid.spacing, (0.9, 0.7, GAP), rtol=1e-6)
    np.testing.assert_array_equal(image.data[0].numpy(), VALUES.T * 2.0 - 1000)
    assert image.source["unit"] == "HU"


def test_enhanced_multiframe_file_equals_the_series(tmp_path):
    series = read_image(write_series(tmp_path / "series", VALUES))
    frames = read_image(write_enhanced(tmp_path / "enhanced.dcm", VALUES))
    assert frames.grid.matches(series.grid)
    np.testing.assert_array_equal(frames.data, series.data)


def test_rescale_may_differ_from_slice_to_slice(tmp_path):
    for index, slope in enumerate((1, 3)):
        position = [0.0, 0.0, 2.0 * index]
        write_slice(
            tmp_path / f"{index}.dcm", VALUES[index], RescaleSlope=slope, RescaleIntercept=0,
            ImagePositionPatient=position, Modality="PT",
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        )  # fmt: skip
    image = read_image(tmp_path)
    np.testing.assert_array_equal(image.data[0, ..., 1], VALUES[1].T * 3.0)


def test_missing_slice_is_refused_with_its_place(tmp_path):
    folder = write_series(tmp_path / "series", VALUES, keep=[0, 1, 3, 4, 5])
    with pytest.raises(InputError, match=r"lacks 1 slices: slices 2 and 3 lie 5 mm apart"):
        read_image(folder)


def test_double_slices_are_refused(tmp_path):
    folder = write_series(tmp_path / "series", VALUES)
    place = [float(f"{coordinate:.6f}") for coordinate in known_affine()[:3, 3] * [-1, -1, 1]]
    write_slice(folder / "again.dcm", VALUES[0], ImagePositionPatient=place)
    with pytest.raises(InputError, match="1 slices at places where it has another"):
        read_image(folder)


def test_mixed_series_are_refused_without_naming_them(tmp_path):
    folder = write_series(tmp_path / "both", VALUES)
    write_slice(
        folder / "x.dcm", VALUES[0], SeriesInstanceUID="9.8.7", ImagePositionPatient=[0, 0, 0]
    )
    with pytest.raises(InputError, match=r"2 DICOM series \(the largest of 6") as caught:
        read_image(folder)
    assert "9.8.7" not in str(caught.value)


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "different planes"),
        ({"PixelSpacing": [1, 1]}, "different pixel spacing"),
        ({"Rows": 4}, "rows and columns"),
        ({"ImagePositionPatient": None}, "without positions"),
    ],
)
def test_a_localizer_among_the_slices_is_refused(tmp_path, attributes, words):
    folder = write_series(tmp_path / "series", VALUES)
    values = VALUES[0][: attributes.get("Rows", 5)]
    write_slice(folder / "x.dcm", values, **{"ImagePositionPatient": [0, 0, 0]} | attributes)
    with pytest.raises(InputError, match=words):
        read_image(folder)


def test_gantry_tilt_warns_and_keeps_positions_true(tmp_path):
    tilt = math.tan(math.radians(15)) * GAP
    step = NORMAL * GAP + ORIENTATION[1] * tilt
    folder = write_series(tmp_path / "series", VALUES, step=step)
    with pytest.warns(VoxplainWarning, match=r"tilted by 15\.0 degrees"):
        image = read_image(folder)
    np.testing.assert_allclose(image.grid.affine, known_affine(step), atol=1e-5)
    assert image.grid.voxel_volume == pytest.approx(0.7 * 0.9 * GAP, rel=1e-5)


@pytest.mark.parametrize(("shift", "refused"), [(0.3, False), (0.8, True)])
def test_uneven_slices_warn_or_are_refused(tmp_path, shift, refused):
    folder = write_series(tmp_path / "series", VALUES, keep=[0, 1, 3, 4, 5])
    place = known_affine()[:3, 3] * [-1, -1, 1] + NORMAL * (2 * GAP + shift)
    write_slice(
        folder / "x.dcm", VALUES[2], ImagePositionPatient=[float(f"{p:.6f}") for p in place]
    )
    if refused:
        with pytest.raises(InputError, match="not evenly spaced"):
            read_image(folder)
    else:
        with pytest.warns(VoxplainWarning, match=r"2\.2 to 2\.8 mm apart"):
            assert read_image(folder).grid.shape[2] == 6


def test_single_image_is_rows_by_columns_with_its_place(tmp_path):
    folder = write_series(tmp_path / "one", VALUES[:1])
    image = read_image(folder / "001.dcm")
    assert image.grid.shape == (5, 4)
    np.testing.assert_array_equal(image.data[0].numpy(), VALUES[0] * 2.0 - 1000)
    affine = known_affine()
    np.testing.assert_allclose(image.grid.world((3, 2)), (affine @ [2, 3, 0, 1])[:3], atol=1e-5)
    volume = read_image(folder / "001.dcm", rank=3)
    assert volume.grid.shape == (4, 5, 1)
    np.testing.assert_allclose(volume.grid.spacing, (0.9, 0.7, 5.0))


@pytest.mark.parametrize(("dtype", "largest"), [(np.uint16, 65535), (np.int16, -1)])
def test_monochrome1_is_inverted_so_that_bright_is_large(tmp_path, dtype, largest):
    stored = np.array([[0, 10], [200, 3000]], dtype=dtype)
    path = tmp_path / "x.dcm"
    write_slice(
        path, stored, PhotometricInterpretation="MONOCHROME1", Modality="DX", RescaleSlope=1,
        RescaleIntercept=0, ImageOrientationPatient=None, PixelSpacing=None,
        ImagerPixelSpacing=[0.2, 0.3],
    )  # fmt: skip
    with pytest.warns(VoxplainWarning, match="burned into the pixels"):
        image = read_image(path)
    np.testing.assert_array_equal(image.data[0].numpy(), largest - stored.astype(float))
    assert image.grid.spacing == pytest.approx((0.2, 0.3))
    assert image.grid.unit == "mm"


def test_color_image_has_three_named_channels_and_no_size_stays_in_pixels(tmp_path):
    colors = np.random.default_rng(0).integers(0, 255, (5, 4, 3), dtype=np.uint8)
    path = tmp_path / "x.dcm"
    write_slice(
        path, colors, Modality="US", BurnedInAnnotation="NO", PixelSpacing=None, RescaleSlope=None,
        RescaleIntercept=None, ImageOrientationPatient=None,
    )  # fmt: skip
    image = read_image(path)
    assert image.channels == ("red", "green", "blue")
    assert image.grid.unit == "pixel"
    np.testing.assert_array_equal(image.data.numpy(), np.moveaxis(colors, -1, 0))


def test_cine_loops_damaged_files_and_empty_folders_are_errors(tmp_path):
    write_slice(tmp_path / "cine.dcm", VALUES, NumberOfFrames=6)
    with pytest.raises(InputError, match="6 frames without positions"):
        read_image(tmp_path / "cine.dcm")
    whole = write_series(tmp_path / "one", VALUES[:1]) / "001.dcm"
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(whole.read_bytes()[:-20])
    with pytest.raises(InputError, match="damaged or cut off"):
        read_image(cut)
    (tmp_path / "text.dcm").write_text("hello")
    with pytest.raises(InputError, match="not a DICOM file"):
        read_image(tmp_path / "text.dcm")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no DICOM images$"):
        read_image(tmp_path / "empty")
    (tmp_path / "empty" / "series").mkdir()
    with pytest.raises(InputError, match="give the folder inside it"):
        read_image(tmp_path / "empty")
