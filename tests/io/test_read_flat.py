"""Pictures and arrays in."""

import nibabel as nib
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image as Pillow
from sidecar_example import sidecar

from voxplain.errors import InputError, VoxplainWarning
from voxplain.io import read_image, write_map

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
    deep = (GRAY.astype(np.uint16) * 5000) + 7
    Pillow.fromarray(deep).save(tmp_path / f"x{suffix}")
    np.testing.assert_array_equal(read_image(tmp_path / f"x{suffix}").data[0], deep)


def test_tiff_color_with_sixteen_bits_and_floats(tmp_path):
    deep = COLOR.astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "c.tif", deep, photometric="rgb")
    np.testing.assert_array_equal(
        read_image(tmp_path / "c.tif").data.numpy(), np.moveaxis(deep, -1, 0)
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


def test_pages_are_refused_or_read_as_the_volume_that_was_asked_for(tmp_path):
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
    assert grid.orientation == ""  # Viewers display it upright, but it has no sides.
    assert grid.spacing == (0.5, 0.25)
    assert grid.unit == "mm"
    header = nib.load(write_map(torch.ones(1, 3, 4), grid, tmp_path / "map", sidecar())).header
    assert (header["sform_code"], header["qform_code"]) == (0, 0)
    np.testing.assert_allclose(header.get_sform(), grid.affine)


def test_broken_pictures_are_told_in_words(tmp_path):
    (tmp_path / "x.png").write_text("no picture")
    with pytest.raises(InputError, match="not a picture"):
        read_image(tmp_path / "x.png")
    Pillow.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(
        tmp_path / "y.png"
    )
    (tmp_path / "y.png").write_bytes((tmp_path / "y.png").read_bytes()[:2000])
    with pytest.raises(InputError, match="damaged or cut off"):
        read_image(tmp_path / "y.png")
    (tmp_path / "x.xyz").write_text("x")
    with pytest.raises(InputError, match=r"x\.xyz is of no kind that can be read"):
        read_image(tmp_path / "x.xyz")


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
        ({"a": np.zeros((2, 2), dtype=bool)}, "true and false"),
        ({"a": np.zeros((2, 0))}, "holds no voxels"),
        ({"a": np.full((2, 2), 1e300)}, "values beyond 3e38"),
        ({"a": np.zeros((2, 2, 2, 2))}, "say channels='first'"),
    ],
)
def test_arrays_that_are_no_image_are_refused(tmp_path, content, words):
    np.savez(tmp_path / "x.npz", **content)
    with pytest.raises(InputError, match=words):
        read_image(tmp_path / "x.npz")


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_color_planes_of_a_tiff_are_channels(tmp_path, kind):
    planes = (np.random.default_rng(0).random((3, 5, 7)) * 250).astype(kind)
    tifffile.imwrite(tmp_path / "x.tif", planes, photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(read_image(tmp_path / "x.tif").data.numpy(), planes)


@pytest.mark.parametrize(
    ("axes", "shape", "order"),
    [
        ("ZCYX", (4, 3, 5, 7), (1, 2, 3, 0)),
        ("CZYX", (3, 4, 5, 7), (0, 2, 3, 1)),
        ("CYX", (4, 5, 7), (0, 1, 2)),
    ],
)
def test_axes_of_ome_are_channels_rows_columns_and_pages(tmp_path, axes, shape, order):
    values = (np.random.default_rng(0).random(shape) * 60000).astype(np.uint16)
    tifffile.imwrite(tmp_path / "x.ome.tif", values, metadata={"axes": axes})
    image = read_image(tmp_path / "x.ome.tif", rank=3 if "Z" in axes else None)
    np.testing.assert_array_equal(image.data.numpy(), values.transpose(order))


def test_a_tiff_with_a_time_axis_is_refused_with_its_axes(tmp_path):
    movie = np.zeros((4, 3, 5, 7), np.uint8)
    tifffile.imwrite(tmp_path / "x.ome.tif", movie, metadata={"axes": "TZYX"})
    with pytest.raises(InputError, match="axes TZYX"):
        read_image(tmp_path / "x.ome.tif", rank=3)


def test_gray_types_of_a_tiff_keep_their_values(tmp_path):
    for kind, top in ((np.uint32, 3e9), (np.int8, -100), (np.float64, 0.1), (np.int16, -3000)):
        values = np.full((5, 7), top).astype(kind)
        tifffile.imwrite(tmp_path / "x.tif", values)
        np.testing.assert_allclose(read_image(tmp_path / "x.tif").data[0], values, rtol=1e-7)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["<f4", ">f8", "<i2", ">u2", "u1"])
def test_arrays_of_every_order_and_type_are_the_same_image(tmp_path, suffix, order, kind):
    values = np.asarray(np.arange(105).reshape(3, 5, 7), dtype=kind, order=order)
    path = tmp_path / f"x{suffix}"
    np.save(path, values) if suffix == ".npy" else np.savez(path, values)
    np.testing.assert_array_equal(read_image(path).data[0], np.arange(105).reshape(3, 5, 7))
    first = read_image(path, channels="first", rank=2)
    np.testing.assert_array_equal(first.data, values)
    last = read_image(path, channels="last", rank=2)
    np.testing.assert_array_equal(last.data, np.moveaxis(values, -1, 0))


@pytest.mark.parametrize(
    ("extra", "kept"), [("unspecified", 3), ("unassalpha", 2), ("assocalpha", 2)]
)
def test_only_what_is_called_transparency_is_left_out_of_a_gray_tiff(tmp_path, extra, kept):
    """Channels without a meaning, as microscopes and tifffile write them, all stay."""
    values = np.random.default_rng(0).integers(0, 255, (3, 5, 7), dtype=np.uint8)
    samples = ["unspecified", extra]
    tifffile.imwrite(
        tmp_path / "x.tif", values, photometric="minisblack", planarconfig="separate",
        extrasamples=samples, metadata=None,
    )  # fmt: skip
    if kept < 3:
        with pytest.warns(VoxplainWarning, match="transparency"):
            image = read_image(tmp_path / "x.tif")
    else:
        image = read_image(tmp_path / "x.tif")
    np.testing.assert_array_equal(image.data, values[:kept])


def test_the_fourth_sample_beside_three_colors_is_left_out_whatever_it_is_called(tmp_path):
    values = np.random.default_rng(0).integers(0, 255, (4, 5, 7), dtype=np.uint16)
    for name, extra in (("a.tif", "unspecified"), ("b.tif", "unassalpha")):
        tifffile.imwrite(
            tmp_path / name, values, photometric="rgb", planarconfig="separate", extrasamples=extra
        )
        with pytest.warns(VoxplainWarning, match="transparency"):
            image = read_image(tmp_path / name)
        np.testing.assert_array_equal(image.data, values[:3])


def test_several_pictures_are_channels_without_colors(tmp_path):
    """Red, green and blue name the channels of one picture alone."""
    for name, values in (("a.png", COLOR), ("b.png", COLOR[::-1])):
        Pillow.fromarray(values).save(tmp_path / name)
    image = read_image([tmp_path / "a.png", tmp_path / "b.png"])
    assert image.channels == tuple(f"channel {number}" for number in range(6))
    np.testing.assert_array_equal(image.data[3:], np.moveaxis(COLOR[::-1], -1, 0))
    named = read_image([tmp_path / "a.png", tmp_path / "b.png"], channels=list("abcdef"))
    assert named.channels == tuple("abcdef")
