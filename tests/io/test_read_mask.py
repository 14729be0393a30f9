"""Masks in: labels are integers from the file to the grid of the image."""

import struct

import nibabel as nib
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image as Pillow

from voxplain.errors import InputError, VoxplainWarning
from voxplain.image import Grid
from voxplain.io import read_labels, read_mask, write_labels

GRAY = np.arange(12, dtype=np.uint8).reshape(3, 4)
COLOR = np.random.default_rng(0).integers(0, 255, (3, 4, 3), dtype=np.uint8)
AFFINE = np.array([[-0.9, 0, 0.1, 4], [0, 1.1, 0, 5], [0.1, 0, 2, 6], [0, 0, 0, 1]])
LABELS = np.random.default_rng(0).integers(0, 4, (6, 7, 8)).astype(np.uint8)


def save(path, labels, affine):
    nib.save(nib.Nifti1Image(labels, affine), path)
    return path


def test_mask_on_the_grid_is_taken_as_it_is(tmp_path):
    mask = read_mask(save(tmp_path / "m.nii.gz", LABELS, AFFINE), Grid((6, 7, 8), AFFINE))
    assert mask.dtype == torch.int64
    np.testing.assert_array_equal(mask, LABELS)


def test_mask_with_flipped_axes_is_put_in_order_without_being_asked(tmp_path):
    turn = nib.orientations.axcodes2ornt("PSL")
    turned = nib.Nifti1Image(LABELS, AFFINE).as_reoriented(turn)
    path = save(tmp_path / "m.nii.gz", np.asarray(turned.dataobj), turned.affine)
    np.testing.assert_array_equal(read_mask(path, Grid((6, 7, 8), AFFINE)), LABELS)


def test_mask_on_another_grid_is_refused_or_resampled_to_the_nearest(tmp_path):
    fine = Grid((12, 14, 16), AFFINE @ np.diag([0.5, 0.5, 0.5, 1]))
    path = save(tmp_path / "m.nii.gz", LABELS, AFFINE)
    with pytest.raises(InputError, match="resample=True"):
        read_mask(path, fine)
    resampled = read_mask(path, fine, resample=True)
    np.testing.assert_array_equal(resampled[::2, ::2, ::2], LABELS)


def test_masks_that_are_no_labels_are_refused(tmp_path):
    grid = Grid((6, 7, 8), AFFINE)
    with pytest.raises(InputError, match="fractions"):
        read_mask(save(tmp_path / "m.nii.gz", LABELS / np.float32(2), AFFINE), grid)
    with pytest.raises(InputError, match="2 channels"):
        read_mask(save(tmp_path / "m.nii.gz", np.stack([LABELS] * 2, -1), AFFINE), grid)


def test_black_and_white_mask_pictures_are_zero_and_one(tmp_path):
    white = (GRAY > 5).astype(np.uint8) * 255
    Pillow.fromarray(np.dstack([white] * 3)).save(tmp_path / "m.png")
    mask = read_mask(tmp_path / "m.png", Grid.default((3, 4)))
    np.testing.assert_array_equal(mask, GRAY > 5)
    Pillow.fromarray(GRAY).save(tmp_path / "l.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "l.png", Grid.default((3, 4))), GRAY)
    Pillow.fromarray(COLOR).save(tmp_path / "c.png")
    with pytest.raises(InputError, match="colored"):
        read_mask(tmp_path / "c.png", Grid.default((3, 4)))
    with pytest.raises(InputError, match=r"shape \(3, 4\), and the image \(4, 4\)"):
        read_mask(tmp_path / "l.png", Grid.default((4, 4)))


def test_a_sheared_mask_grid_is_no_mere_reordering(tmp_path):
    shear = np.eye(4)
    shear[0, 1] = 1
    own = Grid((12, 7, 8), AFFINE)
    path = save(tmp_path / "m.nii.gz", np.zeros(own.shape, np.uint8), AFFINE)
    with pytest.raises(InputError, match="another grid"):
        read_mask(path, Grid((6, 7, 8), AFFINE @ shear))


IDS = np.where(LABELS == 1, 614454277, np.where(LABELS == 2, 614454278, 0))


@pytest.mark.parametrize("kind", [np.int32, np.uint32, np.int64, np.uint64, np.float64])
@pytest.mark.parametrize("resample", [False, True])
def test_ids_of_an_atlas_stay_apart(tmp_path, kind, resample):
    file = nib.Nifti1Image(IDS.astype(kind), AFFINE, dtype=kind)
    nib.save(file, tmp_path / "m.nii.gz")
    step = 0.5 if resample else 1
    grid = Grid((6, 7, 8), AFFINE @ np.diag([step, step, step, 1]))
    mask = read_mask(tmp_path / "m.nii.gz", grid, resample=resample)
    stop = [int(np.ceil(size * step)) for size in grid.shape]
    every = 2 if resample else 1
    expected = IDS[: stop[0], : stop[1], : stop[2]]
    np.testing.assert_array_equal(mask[::every, ::every, ::every], expected)
    assert set(mask.unique().tolist()) == set(np.unique(expected).tolist())


def test_ids_of_an_atlas_come_back_from_the_copy_in_a_run(tmp_path):
    grid = Grid((6, 7, 8), AFFINE)
    for ids in (IDS, IDS * 10):
        path = write_labels(torch.from_numpy(ids), grid, tmp_path / "copy.nii.gz")
        np.testing.assert_array_equal(read_mask(path, grid), ids)


def test_labels_in_floats_that_cannot_hold_them_are_refused(tmp_path):
    path = save(tmp_path / "m.nii.gz", IDS.astype(np.float32), AFFINE)
    with pytest.raises(InputError, match="32-bit floats, which merge labels above 16777216"):
        read_mask(path, Grid((6, 7, 8), AFFINE))


def test_labels_behind_a_scale_are_whole_to_the_rounding_of_the_header(tmp_path):
    path = save(tmp_path / "m.nii", LABELS.astype(np.int16) * 30, AFFINE)
    content = bytearray(path.read_bytes())
    content[112:116] = struct.pack("<f", 1 / 30)  # The slope, of 32 bits.
    path.write_bytes(content)
    assert (np.asarray(nib.load(path).dataobj) != LABELS).any()
    np.testing.assert_array_equal(read_mask(path, Grid((6, 7, 8), AFFINE)), LABELS)


def test_negative_labels_are_refused_in_words(tmp_path):
    path = save(tmp_path / "m.nii.gz", LABELS.astype(np.int16) - 1, AFFINE)
    with pytest.raises(InputError, match="negative labels"):
        read_mask(path, Grid((6, 7, 8), AFFINE))


def picture(path, values, **options):
    Pillow.fromarray(values).save(path, **options)
    return path


FLAT = Grid.picture((3, 4))


def test_every_gray_value_is_a_label_and_255_is_mentioned(tmp_path):
    labels = np.array([[0, 1, 2, 255]] * 3, dtype=np.uint8)
    with pytest.warns(VoxplainWarning, match="255 beside labels up to 2"):
        mask = read_mask(picture(tmp_path / "m.png", labels), FLAT)
    np.testing.assert_array_equal(mask, labels)


@pytest.mark.parametrize("values", [(0, 254, 255, 255), (0, 128, 255, 0), (1, 255, 255, 1)])
def test_only_black_and_white_alone_become_zero_and_one(tmp_path, values):
    labels = np.array([values] * 3, dtype=np.uint8)
    np.testing.assert_array_equal(read_mask(picture(tmp_path / "m.png", labels), FLAT), labels)


def test_labels_of_16_and_32_bits_stay(tmp_path):
    deep = GRAY.astype(np.uint16) * 1000
    np.testing.assert_array_equal(read_mask(picture(tmp_path / "m.png", deep), FLAT), deep)
    white = (GRAY > 5) * np.uint16(65535)
    np.testing.assert_array_equal(read_mask(picture(tmp_path / "w.png", white), FLAT), GRAY > 5)
    ids = GRAY.astype(np.uint32) * 300_000_000
    tifffile.imwrite(tmp_path / "m.tif", ids)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.tif", FLAT), ids)


def test_indices_of_a_palette_are_labels_even_0_and_255(tmp_path):
    indexed = Pillow.fromarray((GRAY > 5).astype(np.uint8) * 255)
    indexed = indexed.convert("P")
    indexed.putpalette([200, 0, 0] * 256)
    indexed.save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", FLAT), (GRAY > 5) * 255)


def test_a_lossy_mask_is_refused_unless_it_is_black_and_white(tmp_path):
    white = np.zeros((16, 16), np.uint8)
    white[3:9, 5:11] = 255
    grid = Grid.picture((16, 16))
    with pytest.raises(InputError, match="JPEG"):
        read_mask(picture(tmp_path / "m.jpg", white, quality=90), grid)
    plain = np.full((16, 16), 255, np.uint8)
    assert read_mask(picture(tmp_path / "p.jpg", plain), grid).unique().tolist() == [1]


def test_pages_of_a_tiff_are_a_mask_of_a_volume(tmp_path):
    pages = np.stack([GRAY + page for page in range(5)])
    tifffile.imwrite(tmp_path / "m.tif", pages, photometric="minisblack")
    mask = read_mask(tmp_path / "m.tif", Grid.default((3, 4, 5)))
    np.testing.assert_array_equal(mask, np.moveaxis(pages, 0, -1))
    with pytest.raises(InputError, match="5 pages"):
        read_mask(tmp_path / "m.tif", FLAT)


def test_true_and_false_are_a_mask(tmp_path):
    np.save(tmp_path / "m.npy", GRAY > 5)
    np.testing.assert_array_equal(read_labels(tmp_path / "m.npy", 2), GRAY > 5)


def test_without_orientation_on_one_side_equal_shapes_are_taken_as_they_are(tmp_path):
    cube = np.random.default_rng(0).integers(0, 4, (4, 4, 4)).astype(np.uint8)
    nib.save(nib.Nifti1Image(cube, None), tmp_path / "m.nii.gz")
    with pytest.warns(VoxplainWarning, match="no orientation"):
        mask = read_mask(tmp_path / "m.nii.gz", Grid((4, 4, 4), np.eye(4)))
    np.testing.assert_array_equal(mask, cube)


@pytest.mark.parametrize("shift", [(0, 0, 0), (2, -1, 1), (-3, 2, 0)])
def test_a_mask_of_another_extent_is_put_at_its_place_only_when_asked(tmp_path, shift):
    """Voxels of the image that the mask does not cover hold no label."""
    whole = Grid((6, 7, 8), AFFINE)
    path = save(tmp_path / "m.nii.gz", LABELS + np.uint8(1), AFFINE)
    grid = whole.sub(shift, (1, 1, 1), (7, 6, 9))
    with pytest.raises(InputError, match="resample=True"):
        read_mask(path, grid)
    expected = np.pad(LABELS + 1, 4)[tuple(slice(4 + s, 4 + s + n) for s, n in
                                           zip(shift, grid.shape, strict=True))]  # fmt: skip
    np.testing.assert_array_equal(read_mask(path, grid, resample=True), expected)


@pytest.mark.parametrize(("largest", "refused"), [(2**24 - 1, False), (2**24, True)])
def test_32_bit_floats_hold_labels_below_the_first_gap(tmp_path, largest, refused):
    """16777216 may have been 16777217."""
    labels = np.where(LABELS == 1, largest, 0).astype(np.float32)
    path, grid = save(tmp_path / "m.nii.gz", labels, AFFINE), Grid((6, 7, 8), AFFINE)
    if refused:
        with pytest.raises(InputError, match="merge labels above"):
            read_mask(path, grid)
    else:
        np.testing.assert_array_equal(read_mask(path, grid), labels)
