"""Reading pictures, arrays and masks."""

import nibabel as nib
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image as Pillow

from voxplain.errors import InputError, VoxplainWarning
from voxplain.image import Grid
from voxplain.io import read_image, read_mask

GRAY = np.arange(12, dtype=np.uint8).reshape(3, 4)
COLOR = np.random.default_rng(0).integers(0, 255, (3, 4, 3), dtype=np.uint8)


def test_gray_stays_one_channel_and_color_has_three(tmp_path):
    Pillow.fromarray(GRAY).save(tmp_path / "g.png")
    Pillow.fromarray(COLOR).save(tmp_path / "c.png")
    gray, color = read_image(tmp_path / "g.png"), read_image(tmp_path / "c.png")
    np.testing.assert_array_equal(gray.data[0], GRAY)
    np.testing.assert_array_equal(color.data.numpy(), np.moveaxis(COLOR, -1, 0))
    assert color.channels == ("red", "green", "blue")
    assert gray.grid.unit == "pixel"


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_stay(tmp_path, suffix):
    sixteen_bit = (GRAY.astype(np.uint16) * 5000) + 7
    Pillow.fromarray(sixteen_bit).save(tmp_path / f"x{suffix}")
    np.testing.assert_array_equal(read_image(tmp_path / f"x{suffix}").data[0], sixteen_bit)


def test_tiff_color_with_sixteen_bits_and_floats(tmp_path):
    sixteen_bit = COLOR.astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "c.tif", sixteen_bit, photometric="rgb")
    np.testing.assert_array_equal(
        read_image(tmp_path / "c.tif").data.numpy(), np.moveaxis(sixteen_bit, -1, 0)
    )
    tifffile.imwrite(tmp_path / "f.tif", GRAY.astype(np.float32) / 7)
    np.testing.assert_array_equal(
        read_image(tmp_path / "f.tif").data[0], GRAY.astype(np.float32) / 7
    )


def test_orientation_of_the_camera_is_applied(tmp_path):
    picture = Pillow.fromarray(GRAY)
    exif = picture.getexif()
    exif[274] = 6  # Turn by 90 degrees clockwise to look upright.
    picture.save(tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "x.png").data[0], np.rot90(GRAY, -1))


def test_transparency_is_left_out_with_a_warning(tmp_path):
    Pillow.fromarray(np.dstack([COLOR, GRAY])).save(tmp_path / "x.png")
    with pytest.warns(VoxplainWarning, match="transparency"):
        image = read_image(tmp_path / "x.png")
    np.testing.assert_array_equal(image.data.numpy(), np.moveaxis(COLOR, -1, 0))


def test_pages_are_refused_unless_a_volume_is_requested(tmp_path):
    pages = [Pillow.fromarray(GRAY + k) for k in range(5)]
    pages[0].save(tmp_path / "x.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(InputError, match="5 pages; say rank 3"):
        read_image(tmp_path / "x.tif")
    image = read_image(tmp_path / "x.tif", rank=3, spacing=(1, 1, 2))
    np.testing.assert_array_equal(image.data[0, ..., 4], GRAY + 4)
    assert image.grid.spacing == (1, 1, 2)


def test_a_picture_stands_upright_in_a_viewer_of_nifti(tmp_path):
    Pillow.fromarray(GRAY).save(tmp_path / "g.png")
    grid = read_image(tmp_path / "g.png", spacing=(0.5, 0.25)).grid
    assert grid.axis_codes == ("P", "L")
    assert grid.spacing == (0.5, 0.25)
    assert grid.unit == "mm"


def test_broken_pictures_are_errors(tmp_path):
    (tmp_path / "x.png").write_text("no picture")
    with pytest.raises(InputError, match="not a picture"):
        read_image(tmp_path / "x.png")
    Pillow.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(
        tmp_path / "y.png"
    )
    (tmp_path / "y.png").write_bytes((tmp_path / "y.png").read_bytes()[:2000])
    with pytest.raises(InputError, match="damaged or cut off"):
        read_image(tmp_path / "y.png")
    (tmp_path / "x.mha").write_text("x")
    with pytest.raises(InputError, match=r"x\.mha is of no kind that can be read"):
        read_image(tmp_path / "x.mha")


@pytest.mark.parametrize(
    ("shape", "channels", "rank", "expected"),
    [
        ((5, 6), None, None, (1, 5, 6)),
        ((5, 6, 7), None, None, (1, 5, 6, 7)),
        ((3, 5, 6), "first", None, (3, 5, 6)),
        ((5, 6, 3), "last", 2, (3, 5, 6)),
        ((5, 6, 7, 2), "last", None, (2, 5, 6, 7)),
    ],
)
def test_array_axes_are_as_declared(tmp_path, shape, channels, rank, expected):
    array = np.random.default_rng(0).normal(size=shape)
    np.save(tmp_path / "x.npy", array)
    np.savez(tmp_path / "x.npz", anything=array)
    for name in ("x.npy", "x.npz"):
        image = read_image(tmp_path / name, channels=channels, rank=rank, spacing=2.0)
        assert tuple(image.data.shape) == expected
        assert image.grid.spacing == (2.0,) * (len(expected) - 1)
    first = array[..., 0] if channels == "last" else array[0] if channels else array
    np.testing.assert_allclose(image.data[0], first, rtol=1e-6)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"a": np.zeros((2, 2)), "b": np.zeros((2, 2))}, "holds 2: a, b"),
        ({"a": np.array([{}], dtype=object)}, "pickled objects"),
        ({"a": np.zeros((2, 2), dtype=complex)}, "real numbers"),
        ({"a": np.zeros((2, 2, 2, 2))}, "say channels='first'"),
    ],
)
def test_arrays_that_are_no_image_are_refused(tmp_path, content, words):
    np.savez(tmp_path / "x.npz", **content)
    with pytest.raises(InputError, match=words):
        read_image(tmp_path / "x.npz")


AFFINE = np.array([[-0.9, 0, 0.1, 4], [0, 1.1, 0, 5], [0.1, 0, 2, 6], [0, 0, 0, 1]])
LABELS = np.random.default_rng(0).integers(0, 4, (6, 7, 8)).astype(np.uint8)


def save(path, labels, affine):
    nib.save(nib.Nifti1Image(labels, affine), path)
    return path


def test_mask_on_the_grid_is_taken_as_it_is(tmp_path):
    mask = read_mask(save(tmp_path / "m.nii.gz", LABELS, AFFINE), Grid((6, 7, 8), AFFINE))
    assert mask.dtype == torch.int64
    np.testing.assert_array_equal(mask, LABELS)


def test_mask_with_flipped_axes_is_reordered_automatically(tmp_path):
    orientation = nib.orientations.axcodes2ornt("PSL")
    reordered = nib.Nifti1Image(LABELS, AFFINE).as_reoriented(orientation)
    path = save(tmp_path / "m.nii.gz", np.asarray(reordered.dataobj), reordered.affine)
    np.testing.assert_array_equal(read_mask(path, Grid((6, 7, 8), AFFINE)), LABELS)


def test_mask_on_another_grid_is_refused_or_resampled_to_the_nearest(tmp_path):
    fine = Grid((12, 14, 16), AFFINE @ np.diag([0.5, 0.5, 0.5, 1]))
    path = save(tmp_path / "m.nii.gz", LABELS, AFFINE)
    with pytest.raises(InputError, match="resample=True"):
        read_mask(path, fine)
    resampled = read_mask(path, fine, resample=True)
    np.testing.assert_array_equal(resampled[::2, ::2, ::2], LABELS)


def test_masks_without_labels_are_refused(tmp_path):
    grid = Grid((6, 7, 8), AFFINE)
    with pytest.raises(InputError, match="fractions"):
        read_mask(save(tmp_path / "m.nii.gz", LABELS / np.float32(2), AFFINE), grid)
    with pytest.raises(InputError, match="2 channels"):
        read_mask(save(tmp_path / "m.nii.gz", np.stack([LABELS] * 2, -1), AFFINE), grid)


def test_black_and_white_mask_pictures_are_zero_and_one(tmp_path):
    white = (GRAY > 5).astype(np.uint8) * 255
    white[0, 0], white[2, 2] = 1, 254  # A lossy copy.
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
