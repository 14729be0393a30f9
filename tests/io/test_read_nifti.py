"""Reading NIfTI: every way a header can state the affine, and every way a file can be broken."""

import gzip

import nibabel as nib
import numpy as np
import pytest

from voxplain.errors import InputError, VoxplainWarning
from voxplain.io import read_image, write_image

RIGID = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.2, -0.3, 0.4) @ np.diag([-0.8, 1.2, 3.0]), [5, -60, 33]
)
OTHER = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.5, 0, 0) @ np.diag([1.0, 1.2, 3.0]), [1, 2, 3]
)
VALUES = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)


def save(path, values=VALUES, sform=(RIGID, 1), qform=(RIGID, 1), units="mm"):
    file = nib.Nifti1Image(values, None)
    file.set_sform(*sform)
    file.set_qform(*qform)
    file.header.set_xyzt_units(units)
    nib.save(file, path)
    return path


@pytest.mark.parametrize(
    ("sform", "qform", "code"),
    [((RIGID, 4), (None, 0), 4), ((None, 0), (RIGID, 1), 1), ((RIGID, 2), (RIGID, 1), 2)],
)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_either_form_gives_the_affine_and_its_code(tmp_path, sform, qform, code, suffix):
    image = read_image(save(tmp_path / f"x{suffix}", sform=sform, qform=qform))
    np.testing.assert_allclose(image.grid.affine, RIGID, atol=1e-5)
    assert image.grid.code == code
    np.testing.assert_array_equal(image.data[0], VALUES)


def test_disagreeing_forms_warn_and_the_sform_holds(tmp_path):
    path = save(tmp_path / "x.nii.gz", qform=(OTHER, 1))
    with pytest.warns(VoxplainWarning, match=r"sform and qform .* mm apart; the sform is used"):
        image = read_image(path)
    np.testing.assert_allclose(image.grid.affine, RIGID, atol=1e-5)


def test_no_form_at_all_warns_and_is_what_other_readers_assume(tmp_path):
    path = save(tmp_path / "x.nii.gz", sform=(None, 0), qform=(None, 0))
    with pytest.warns(VoxplainWarning, match="no orientation"):
        image = read_image(path)
    np.testing.assert_allclose(image.grid.affine, nib.load(path).affine)
    assert image.grid.code == 0


@pytest.mark.parametrize(("units", "scale"), [("meter", 1000), ("micron", 0.001), ("unknown", 1)])
def test_units_become_millimeters(tmp_path, units, scale):
    image = read_image(save(tmp_path / "x.nii.gz", units=units))
    np.testing.assert_allclose(image.grid.spacing, np.array([0.8, 1.2, 3]) * scale, rtol=1e-5)
    np.testing.assert_allclose(image.grid.affine[:3], RIGID[:3] * scale, rtol=1e-5)
    written = read_image(write_image(image, tmp_path / "copy.nii.gz"))
    np.testing.assert_allclose(written.grid.affine, image.grid.affine, rtol=1e-4)


def test_channels_of_a_fifth_axis_follow_those_of_the_fourth(tmp_path):
    five = np.random.default_rng(0).normal(size=(5, 6, 7, 2, 3)).astype(np.float32)
    image = read_image(save(tmp_path / "x.nii.gz", five))
    for fourth in range(2):
        for fifth in range(3):
            channel = image.data[fourth + 2 * fifth]
            np.testing.assert_array_equal(channel, five[..., fourth, fifth])


def test_micrometers_of_a_microscope_are_no_singular_affine(tmp_path):
    tiny = np.diag([1e-5, 2e-5, 1e-5, 1])
    image = read_image(save(tmp_path / "x.nii.gz", sform=(tiny, 1), qform=(None, 0)))
    np.testing.assert_allclose(image.grid.spacing, (1e-5, 2e-5, 1e-5), rtol=1e-5)


def test_a_fourth_axis_is_channels_and_one_of_length_one_is_none(tmp_path):
    four = np.stack([VALUES, VALUES + 1, -VALUES], axis=-1)
    image = read_image(save(tmp_path / "x.nii.gz", four), channels=("a", "b", "c"))
    np.testing.assert_array_equal(image.data.numpy(), np.moveaxis(four, -1, 0))
    assert image.channels == ("a", "b", "c")
    single = read_image(save(tmp_path / "y.nii.gz", VALUES[..., None]))
    assert single.data.shape == (1, 5, 6, 7)
    vector = read_image(save(tmp_path / "z.nii.gz", four[:, :, :, None]))
    np.testing.assert_array_equal(vector.data, image.data)


@pytest.mark.parametrize("through", [0, 1, 2])
def test_one_slice_is_an_image_at_its_place_or_a_volume_if_requested(tmp_path, through):
    values = VALUES.take([2], axis=through)
    path = save(tmp_path / "x.nii.gz", values)
    image = read_image(path)
    assert image.rank == 2
    np.testing.assert_array_equal(image.data[0].numpy(), values.squeeze(through))
    index = np.insert([3, 4], through, 0)
    np.testing.assert_allclose(image.grid.world((3, 4)), (RIGID @ [*index, 1])[:3], atol=1e-5)
    assert read_image(path, rank=3).data.shape == (1, *values.shape)


def test_scaled_integers_rgb_and_nifti2_are_read(tmp_path):
    scaled = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))
    scaled.header.set_slope_inter(0.5, -3)
    nib.save(scaled, tmp_path / "s.nii")
    expected = np.arange(24).reshape(2, 3, 4) * 0.5 - 3
    np.testing.assert_array_equal(read_image(tmp_path / "s.nii").data[0], expected)
    colors = np.zeros((2, 3, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    colors["G"] = 7
    nib.save(nib.Nifti1Image(colors, np.eye(4)), tmp_path / "c.nii.gz")
    assert read_image(tmp_path / "c.nii.gz").data.amax(dim=(1, 2, 3)).tolist() == [0, 7, 0]
    nib.save(nib.Nifti2Image(VALUES, RIGID), tmp_path / "two.nii.gz")
    np.testing.assert_array_equal(read_image(tmp_path / "two.nii.gz").data[0], VALUES)


def test_compression_is_detected_by_content_not_by_suffix(tmp_path):
    plain = save(tmp_path / "x.nii").read_bytes()
    (tmp_path / "named.nii.gz").write_bytes(plain)
    (tmp_path / "packed.nii").write_bytes(gzip.compress(plain))
    for name in ("named.nii.gz", "packed.nii"):
        np.testing.assert_array_equal(read_image(tmp_path / name).data[0], VALUES)


def broken(tmp_path, kind):
    path = tmp_path / "scan.nii.gz"
    whole = save(path).read_bytes()
    if kind == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "truncated inside":
        path.write_bytes(gzip.compress(gzip.decompress(whole)[:-50]))
    elif kind == "text":
        path.write_text("not an image at all\n" * 50)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "missing":
        path.unlink()
    elif kind == "NaN":
        values = VALUES.copy()
        values[1, 2, 3] = np.nan
        values[4, 0, 0] = np.inf
        save(path, values)
    elif kind == "singular":
        file = nib.Nifti1Image(VALUES, None)
        file.set_sform(np.diag([1, 1, 0, 1]), 1)
        nib.save(file, path)
    elif kind == "complex":
        save(path, VALUES.astype(np.complex64))
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("truncated", r"scan\.nii\.gz is damaged or cut off"),
        ("truncated inside", r"scan\.nii\.gz is damaged or cut off"),
        ("text", r"scan\.nii\.gz is not a NIfTI file"),
        ("empty", r"scan\.nii\.gz is not a NIfTI file"),
        ("missing", "there is no file"),
        ("NaN", r"2 values that are NaN or infinite, the first at voxel \(1, 2, 3\) of channel 0"),
        ("singular", r"scan\.nii\.gz: the affine of the grid is singular"),
        ("complex", "complex numbers"),
    ],
)
def test_broken_files_are_errors_of_one_sentence(tmp_path, kind, words):
    with pytest.raises(InputError, match=words) as caught:
        read_image(broken(tmp_path, kind))
    assert "\n" not in str(caught.value)


def test_rank_two_of_a_volume_and_spacing_of_a_nifti_are_refused(tmp_path):
    path = save(tmp_path / "x.nii.gz")
    with pytest.raises(InputError, match="rank 2 was requested"):
        read_image(path, rank=2)
    with pytest.raises(InputError, match="states its own spacing"):
        read_image(path, spacing=1.0)


def test_several_files_are_channels_if_their_grids_are_the_same(tmp_path):
    paths = [save(tmp_path / f"{name}.nii.gz", VALUES * k) for k, name in enumerate("abc")]
    image = read_image(paths, channels=("a", "b", "c"))
    np.testing.assert_array_equal(image.data.numpy(), np.stack([VALUES * k for k in range(3)]))
    moved = save(tmp_path / "moved.nii.gz", sform=(OTHER, 1), qform=(OTHER, 1))
    with pytest.raises(InputError, match=r"a\.nii\.gz and moved\.nii\.gz are not on the same grid"):
        read_image([*paths, moved])
    with pytest.raises(InputError, match="2 channel names for the 3 channels"):
        read_image(paths, channels=("a", "b"))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_voxels_begin_where_the_header_says_in_either_byte_order(tmp_path, order, kind):
    file = kind(VALUES.astype(f"{order}f4"), RIGID, kind.header_class(endianness=order))
    file.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"longer than a header"))
    nib.save(file, tmp_path / "x.nii.gz")
    whole = len(gzip.decompress((tmp_path / "x.nii.gz").read_bytes()))
    assert whole - VALUES.nbytes > int(file.header["sizeof_hdr"]) + 4
    image = read_image(tmp_path / "x.nii.gz")
    np.testing.assert_array_equal(image.data[0], VALUES)
    np.testing.assert_allclose(image.grid.affine, RIGID, atol=1e-5)


def test_what_follows_the_voxels_is_not_read_and_mentioned(tmp_path):
    path = save(tmp_path / "x.nii")
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.warns(VoxplainWarning, match="more than its header promises"):
        image = read_image(path)
    np.testing.assert_array_equal(image.data[0], VALUES)
