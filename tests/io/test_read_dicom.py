"""DICOM in: geometry against an affine worked out by hand, and every way a series can be wrong."""

import math
import shutil

import numpy as np
import pydicom
import pytest
import torch
from pydicom.sequence import Sequence
from pydicom.uid import BasicTextSRStorage
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
    place = [float(f"{part:.6f}") for part in known_affine()[:3, 3] * [-1, -1, 1]]
    write_slice(folder / "again.dcm", VALUES[0] + 1, ImagePositionPatient=place)
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
    lean = math.tan(math.radians(15)) * GAP
    step = NORMAL * GAP + ORIENTATION[1] * lean
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


@pytest.mark.parametrize(("dtype", "ends"), [(np.uint16, 65535), (np.int16, -1)])
def test_monochrome1_is_turned_so_that_bright_is_large(tmp_path, dtype, ends):
    stored = np.array([[0, 10], [200, 3000]], dtype=dtype)
    path = tmp_path / "x.dcm"
    write_slice(
        path, stored, PhotometricInterpretation="MONOCHROME1", Modality="DX", RescaleSlope=1,
        RescaleIntercept=0, ImageOrientationPatient=None, PixelSpacing=None,
        ImagerPixelSpacing=[0.2, 0.3],
    )  # fmt: skip
    with pytest.warns(VoxplainWarning, match="burned into the pixels"):
        image = read_image(path)
    np.testing.assert_array_equal(image.data[0].numpy(), ends - stored.astype(float))
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


def test_cine_loop_damage_and_empty_folders_are_told_in_words(tmp_path):
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


@pytest.mark.parametrize("size", [150, 200, 300, 600])
@pytest.mark.parametrize("suffix", [".dcm", ""])
def test_a_slice_that_was_cut_off_is_refused_by_name(tmp_path, size, suffix):
    folder = write_series(tmp_path / "series", VALUES)
    first = folder / "001.dcm"
    cut = folder / f"last{suffix}"
    cut.write_bytes(first.read_bytes()[:size])
    first.unlink()
    with pytest.raises(InputError, match=rf"{cut.name} is damaged or cut off"):
        read_image(folder)


def test_an_empty_slice_is_refused_and_what_is_no_image_is_passed_over(tmp_path):
    folder = write_series(tmp_path / "series", VALUES)
    report = pydicom.dcmread(folder / "001.dcm")
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = BasicTextSRStorage
    for name in ("Rows", "Columns", "PixelData"):
        delattr(report, name)
    report.save_as(folder / "report.dcm")
    (folder / ".DS_Store").write_bytes(b"")
    (folder / "notes.txt").write_bytes(b"")
    assert read_image(folder).grid.shape == (4, 5, 6)
    (folder / "IM0007").write_bytes(b"")
    with pytest.raises(InputError, match="IM0007 is empty"):
        read_image(folder)


@pytest.mark.parametrize("implicit", [False, True])
def test_files_without_a_preamble_are_read(tmp_path, implicit):
    folder = write_series(tmp_path / "series", VALUES)
    whole = read_image(folder)
    for file in list(folder.iterdir()):
        data = pydicom.dcmread(file)
        del data.file_meta
        data.preamble = None
        bare = folder / file.stem
        pydicom.dcmwrite(bare, data, implicit_vr=implicit, little_endian=True)
        file.unlink()
        assert b"DICM" not in bare.read_bytes()[:140]
    image = read_image(folder)
    assert torch.equal(image.data, whole.data)
    assert image.grid.matches(whole.grid)


def test_a_series_is_chosen_by_its_number(tmp_path):
    folder = write_series(tmp_path / "both", VALUES, SeriesNumber=3)
    for index in range(2):
        place = [0.0, 0.0, float(index)]
        write_slice(
            folder / f"x{index}.dcm", VALUES[index], SeriesInstanceUID="9.8.7", SeriesNumber=5,
            ImagePositionPatient=place, ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        )  # fmt: skip
    with pytest.raises(InputError, match=r"3 with 6 images, 5 with 2 images"):
        read_image(folder)
    assert read_image(folder, series=5).grid.shape == (4, 5, 2)
    assert read_image(folder, series=3).grid.shape == (4, 5, 6)
    with pytest.raises(InputError, match="no DICOM series number 4"):
        read_image(folder, series=4)
    with pytest.raises(InputError, match="chooses from a DICOM folder"):
        read_image(folder / "x0.dcm", series=5)


def test_exact_copies_are_used_once_with_a_warning(tmp_path):
    folder = write_series(tmp_path / "series", VALUES)
    shutil.copy(folder / "002.dcm", folder / "copy of 002.dcm")
    with pytest.warns(VoxplainWarning, match="1 images of the series are exact copies"):
        image = read_image(folder)
    np.testing.assert_array_equal(image.data[0].numpy(), VALUES.T * 2.0 - 1000)


def write_table(path, table, **attributes):
    item = pydicom.Dataset()
    item.LUTDescriptor, item.LUTData = [len(table), 0, 16], table.tolist()
    item.ModalityLUTType = "US"
    item["LUTDescriptor"].VR = item["LUTData"].VR = "US"
    stored = np.random.default_rng(0).integers(0, len(table), (5, 4)).astype(np.uint16)
    write_slice(
        path, stored, Modality="CR", BurnedInAnnotation="NO", RescaleSlope=None,
        RescaleIntercept=None, ModalityLUTSequence=Sequence([item]), **attributes,
    )  # fmt: skip
    return stored


def test_a_modality_table_gives_the_values_and_monochrome1_turns_them(tmp_path):
    table = (np.arange(4096) ** 2 // 256).astype(np.uint16)
    stored = write_table(tmp_path / "x.dcm", table)
    np.testing.assert_array_equal(read_image(tmp_path / "x.dcm").data[0], table[stored])
    window = {"WindowCenter": 100, "WindowWidth": 50}
    stored = write_table(
        tmp_path / "y.dcm", table, PhotometricInterpretation="MONOCHROME1", **window
    )
    image = read_image(tmp_path / "y.dcm")
    np.testing.assert_array_equal(image.data[0], 65535 - table[stored].astype(float))
    assert image.source["window"] == [65535 - 125, 65535 - 75]


def test_colors_of_a_palette_are_those_of_its_table(tmp_path):
    table = np.random.default_rng(0).integers(0, 65535, (3, 256)).astype(np.uint16)
    stored = np.random.default_rng(1).integers(0, 255, (5, 4)).astype(np.uint8)
    palette = {}
    for row, color in zip(table, ("Red", "Green", "Blue"), strict=True):
        palette[f"{color}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        palette[f"{color}PaletteColorLookupTableData"] = row.tobytes()
    write_slice(
        tmp_path / "x.dcm", stored, Modality="US", BurnedInAnnotation="NO", RescaleSlope=None,
        RescaleIntercept=None, PhotometricInterpretation="PALETTE COLOR", **palette,
    )  # fmt: skip
    image = read_image(tmp_path / "x.dcm")
    np.testing.assert_array_equal(image.data.numpy(), table[:, stored])
    assert image.channels == ("red", "green", "blue")


def test_the_window_of_an_inverted_image_is_inverted_with_it(tmp_path):
    stored = np.array([[0, 10], [200, 3000]], dtype=np.uint16)
    common = {
        "Modality": "DX", "BurnedInAnnotation": "NO", "RescaleSlope": 2, "RescaleIntercept": 7,
        "WindowCenter": [207, 1], "WindowWidth": [400, 1],
    }  # fmt: skip
    write_slice(tmp_path / "x.dcm", stored, PhotometricInterpretation="MONOCHROME1", **common)
    image = read_image(tmp_path / "x.dcm")
    # Stored 0 and 200 are the values 7 and 407, the ends of the window.
    assert image.source["window"] == [float(image.data[0, 1, 0]), float(image.data[0, 0, 0])]
    write_slice(tmp_path / "y.dcm", stored, **common)
    assert read_image(tmp_path / "y.dcm").source["window"] == [7, 407]


def test_a_radiograph_without_orientation_has_no_sides(tmp_path):
    write_slice(
        tmp_path / "x.dcm", np.ones((5, 4), np.uint16), Modality="DX", BurnedInAnnotation="NO",
        ImageOrientationPatient=None,
    )  # fmt: skip
    grid = read_image(tmp_path / "x.dcm").grid
    assert (grid.code, grid.orientation) == (0, "")


@pytest.mark.parametrize("modality", ["DX", "CT"])
@pytest.mark.parametrize(("dtype", "ends"), [(np.uint16, 4095), (np.int16, -1)])
def test_twelve_bits_stored_in_sixteen_are_turned_within_twelve(tmp_path, dtype, ends, modality):
    """A quantity is not turned, however it is displayed."""
    stored = np.array([[0, 10], [200, 2047]], dtype=dtype)
    write_slice(
        tmp_path / "x.dcm", stored, PhotometricInterpretation="MONOCHROME1", Modality=modality,
        BurnedInAnnotation="NO", RescaleSlope=2, RescaleIntercept=7, BitsStored=12, HighBit=11,
        WindowCenter=107, WindowWidth=200,
    )  # fmt: skip
    image = read_image(tmp_path / "x.dcm")
    turned = ends - stored.astype(float) if modality == "DX" else stored
    np.testing.assert_array_equal(image.data[0].numpy(), turned * 2 + 7)
    mirrored = [2 * ends + 14 - 207, 2 * ends + 14 - 7]
    assert image.source["window"] == (mirrored if modality == "DX" else [7, 207])


@pytest.mark.parametrize(
    ("attributes", "spacing"),
    [
        ({"SpacingBetweenSlices": 3.5}, 3.5),
        ({}, 5.0),
        ({"SliceThickness": None}, 1.0),
    ],
)
def test_a_lone_slice_is_as_far_from_the_next_as_its_header_says(tmp_path, attributes, spacing):
    """Slices may overlap or leave gaps, so that thickness is not distance."""
    folder = write_series(tmp_path / "one", VALUES[:1], **attributes)
    for rank in (2, 3):
        affine = read_image(folder / "001.dcm", rank=rank).grid.affine
        np.testing.assert_allclose(affine[:3, 2], spacing * NORMAL * [-1, -1, 1], atol=1e-6)


def test_equal_pixels_of_other_meaning_are_no_copies(tmp_path):
    """With another slope or intercept they are other values at the same place."""
    for changed in ({"RescaleSlope": 3}, {"RescaleIntercept": 0}):
        folder = write_series(tmp_path / "".join(changed), VALUES)
        again = pydicom.dcmread(folder / "002.dcm")
        for name, value in changed.items():
            setattr(again, name, value)
        again.save_as(folder / "again.dcm")
        with pytest.raises(InputError, match="1 slices at places where it has another"):
            read_image(folder)


@pytest.mark.parametrize(("shift", "refused"), [(0.03, False), (0.3, True)])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_slice_beside_the_others_is_refused(tmp_path, shift, refused, axis):
    """A tenth of the smaller side of a pixel, 0.07 mm, is tolerated."""
    folder = write_series(tmp_path / "series", VALUES, keep=[0, 1, 3, 4, 5])
    place = known_affine()[:3, 3] * [-1, -1, 1] + NORMAL * 2 * GAP + shift * ORIENTATION[axis]
    place = [float(f"{part:.6f}") for part in place]
    write_slice(folder / "x.dcm", VALUES[2], ImagePositionPatient=place)
    if refused:
        with pytest.raises(InputError, match=r"shifted sideways by up to 0\.3 mm"):
            read_image(folder)
    else:
        assert read_image(folder).grid.shape == (4, 5, 6)


@pytest.mark.parametrize(
    ("sizes", "spacing"),
    [
        ({}, (0.7, 0.9)),
        ({"PixelSpacing": None}, (1.4, 1.8)),
        ({"PixelSpacing": None, "ImagerPixelSpacing": None}, (3.0, 4.0)),
    ],
)
def test_the_size_of_a_pixel_in_the_body_comes_before_that_on_the_detector(
    tmp_path, sizes, spacing
):
    every = {"ImagerPixelSpacing": [1.4, 1.8], "NominalScannedPixelSpacing": [3, 4]}
    write_slice(tmp_path / "x.dcm", VALUES[0], **every | sizes)
    assert read_image(tmp_path / "x.dcm").grid.spacing == pytest.approx(spacing)


def test_slices_are_as_far_apart_as_their_positions_say(tmp_path):
    """Not as thick as they are, which may be another number."""
    step = NORMAL * 1.2537
    image = read_image(write_series(tmp_path / "series", VALUES, step=step))
    np.testing.assert_allclose(image.grid.affine, known_affine(step), atol=1e-5)
    assert image.grid.spacing[2] == pytest.approx(1.2537, abs=1e-5)


@pytest.mark.parametrize(("modality", "unit"), [("CT", "HU"), ("MR", None), ("PT", None)])
def test_quantities_are_not_inverted_and_only_those_of_ct_are_hounsfield_units(
    tmp_path, modality, unit
):
    stored = np.array([[0, 10], [200, 3000]], dtype=np.int16)
    write_slice(
        tmp_path / "x.dcm", stored, Modality=modality, PhotometricInterpretation="MONOCHROME1"
    )
    image = read_image(tmp_path / "x.dcm")
    np.testing.assert_array_equal(image.data[0].numpy(), stored * 2.0 - 1000)
    assert image.source.get("unit") == unit


def test_without_an_orientation_columns_run_to_the_left_and_rows_to_the_back(tmp_path):
    """The orientation (1, 0, 0), (0, 1, 0) of DICOM, with code 0, as nobody has stated it."""
    write_slice(tmp_path / "x.dcm", VALUES[0], ImageOrientationPatient=None)
    image = read_image(tmp_path / "x.dcm")
    assert image.grid.code == 0
    step_of_row, step_of_column = (image.grid.affine[:2, axis] for axis in (0, 1))
    np.testing.assert_array_equal(np.sign(step_of_row), [0, -1])
    np.testing.assert_array_equal(np.sign(step_of_column), [-1, 0])
