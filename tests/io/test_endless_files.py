"""Files that have no end in sight: pages in a circle, and deflated DICOM that unpacks to much."""

import struct
import time

import numpy as np
import pydicom
import pytest
import tifffile
from pydicom.uid import DeflatedExplicitVRLittleEndian
from synthetic_dicom import write_slice

from voxplain.errors import InputError
from voxplain.image import Grid
from voxplain.io import bounds, read_image, read_mask

VALUES = np.random.default_rng(1).integers(0, 2000, (5, 4), dtype=np.int16)


def circle(path, pages, back, *, bigtiff=False, byteorder="<", dtype=np.uint8):
    """A TIFF whose last page is followed by page ``back``."""
    with tifffile.TiffWriter(path, bigtiff=bigtiff, byteorder=byteorder) as file:
        for page in range(pages):
            values = np.full((6, 5), page % 250 + 1, dtype)
            file.write(values, photometric="minisblack", metadata=None)
    with tifffile.TiffFile(path) as file:
        offsets = [page.offset for page in file.pages]
    content = bytearray(path.read_bytes())
    code, entry, counts = ("Q", 20, "Q") if bigtiff else ("I", 12, "H")
    (count,) = struct.unpack_from(byteorder + counts, content, offsets[-1])
    at = offsets[-1] + struct.calcsize(counts) + entry * count
    assert struct.unpack_from(byteorder + code, content, at) == (0,)
    struct.pack_into(byteorder + code, content, at, offsets[back])
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(("pages", "back"), [(1, 0), (3, 0), (3, 2), (150, 10)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_pages_in_a_circle_are_refused_at_once(tmp_path, pages, back, dtype):
    """Pillow reads the pages of eight bits, and tifffile those of 64."""
    path = circle(tmp_path / "pages.tif", pages, back, dtype=dtype)
    started = time.perf_counter()
    for ask in (lambda: read_image(path, rank=3), lambda: read_mask(path, Grid.picture((6, 5)))):
        with pytest.raises(InputError, match=r"^pages\.tif is damaged: .* in a circle") as caught:
            ask()
        assert "\n" not in str(caught.value)
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_every_layout_of_a_tiff_is_followed(tmp_path, bigtiff, byteorder):
    layout = {"bigtiff": bigtiff, "byteorder": byteorder}
    with pytest.raises(InputError, match="in a circle"):
        read_image(circle(tmp_path / "pages.tif", 3, 1, **layout), rank=3)
    values = np.arange(3 * 6 * 5, dtype=np.uint8).reshape(3, 6, 5)
    tifffile.imwrite(tmp_path / "whole.tif", values, photometric="minisblack", **layout)
    read = read_image(tmp_path / "whole.tif", rank=3).data[0].numpy()
    np.testing.assert_array_equal(read, np.moveaxis(values, 0, -1))


def deflated(path, beside=b""):
    data = write_slice(path, VALUES)
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    if beside:
        data.add_new(0x00111001, "OB", beside)
    data.save_as(path, enforce_file_format=True)
    return path


def test_a_deflated_slice_is_read(tmp_path):
    write_slice(tmp_path / "plain.dcm", VALUES)
    plain = read_image(tmp_path / "plain.dcm")
    packed = read_image(deflated(tmp_path / "packed.dcm"))
    np.testing.assert_array_equal(packed.data, plain.data)
    assert packed.grid.matches(plain.grid)


@pytest.mark.parametrize("kind", ["image", "mask", "without preamble"])
def test_a_deflated_file_that_unpacks_to_more_than_the_limit_is_refused(
    tmp_path, monkeypatch, kind
):
    path = deflated(tmp_path / "bomb.dcm", bytes(2**26))
    assert path.stat().st_size < 2**17
    if kind == "without preamble":
        path.write_bytes(path.read_bytes()[132:])
    monkeypatch.setattr(bounds, "UNPACKED_BYTES", 2**24)
    inflated = []
    monkeypatch.setattr("zlib.decompress", lambda *_: inflated.append(1))
    with pytest.raises(InputError, match=r"^bomb\.dcm unpacks to more than 0\.0156.* GiB"):
        read_mask(path, Grid.picture((5, 4))) if kind == "mask" else read_image(path)
    assert not inflated


def test_a_deflated_file_that_is_hardly_packed_is_no_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr(bounds, "UNPACKED_BYTES", 64)
    assert read_image(deflated(tmp_path / "packed.dcm")).data.shape == (1, 5, 4)


def test_a_damaged_stream_is_one_sentence(tmp_path):
    path = deflated(tmp_path / "packed.dcm")
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(InputError, match=r"^packed\.dcm is (damaged|not|no)"):
        read_image(path)
    assert pydicom.dcmread(deflated(path)).Rows == 5
