"""Small files that promise little and unpack to much, or promise much: one sentence, soon."""

import gzip
import struct
import tracemalloc
import warnings
import zipfile
import zlib

import nibabel as nib
import numpy as np
import pytest

from voxplain.errors import InputError, VoxplainWarning
from voxplain.io import bounds, read_image

VALUES = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
LITTLE = 8 * 2**20
"""Bytes, where all that is promised would be 64 MiB."""


def zeros(mebibytes):
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(mebibytes)) + packer.flush()


def npy_header(shape):
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * ((64 - (len(text) + 11) % 64) % 64) + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text


def peak(ask):
    """Bytes that Python allocated at most."""
    tracemalloc.start()
    try:
        ask()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_what_follows_the_promised_voxels_is_not_unpacked(tmp_path):
    nib.save(nib.Nifti1Image(VALUES, np.eye(4)), tmp_path / "small.nii")
    content = gzip.compress((tmp_path / "small.nii").read_bytes()) + zeros(64)
    (tmp_path / "x.nii.gz").write_bytes(content)

    def ask():
        with pytest.warns(VoxplainWarning, match=r"x\.nii\.gz holds more than its header promises"):
            np.testing.assert_array_equal(read_image(tmp_path / "x.nii.gz").data[0], VALUES)

    assert peak(ask) < LITTLE


def bomb(tmp_path, kind):
    """A file that promises and holds 16 Mi float32 values, or unpacks to them."""
    path = tmp_path / f"bomb{kind}"
    if kind == ".npz":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr("a.npy", npy_header((256, 256, 256)) + bytes(64 * 2**20))
    elif kind == ".nii.gz":
        header = nib.Nifti1Header()
        header.set_data_shape((256, 256, 256))
        header.set_data_dtype(np.float32)
        header["vox_offset"], header["magic"] = 352, b"n+1"
        path.write_bytes(gzip.compress(header.binaryblock + bytes(4)) + zeros(64))
    elif kind == ".mgz":
        header = nib.MGHImage(np.zeros((2, 2, 2), np.float32), np.eye(4)).header
        header["dims"] = (256, 256, 256, 1)
        path.write_bytes(gzip.compress(header.binaryblock) + zeros(64))
    elif kind == ".nrrd":
        head = "NRRD0004\ntype: float\ndimension: 3\nsizes: 256 256 256\nencoding: gzip\n\n"
        path.write_bytes(head.encode() + zeros(64))
    else:
        head = "NDims = 3\nDimSize = 256 256 256\nElementType = MET_FLOAT\nCompressedData = True\n"
        content = zlib.compress(bytes(64 * 2**20))
        path.write_bytes(head.encode() + b"ElementDataFile = LOCAL\n" + content)
    return path


@pytest.mark.parametrize("kind", [".npz", ".nii.gz", ".mgz", ".nrrd", ".mha"])
def test_a_file_that_would_unpack_to_more_than_the_limit_is_refused(tmp_path, monkeypatch, kind):
    path = bomb(tmp_path, kind)
    assert path.stat().st_size < 2**17
    monkeypatch.setattr(bounds, "UNPACKED_BYTES", 2**24)

    def ask():
        with pytest.raises(InputError, match=rf"bomb{kind} promises (1 x )?256 x 256 x 256 values"):
            read_image(path)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert peak(ask) < LITTLE


def test_a_large_file_that_is_hardly_packed_is_no_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr(bounds, "UNPACKED_BYTES", 64)
    np.savez_compressed(tmp_path / "x.npz", VALUES)
    np.testing.assert_array_equal(read_image(tmp_path / "x.npz").data[0], VALUES)


def test_an_unpacked_stream_of_a_metaimage_ends_where_its_header_says(tmp_path):
    head = "NDims = 3\nDimSize = 2 3 4\nElementType = MET_UCHAR\nCompressedData = True\n"
    content = zlib.compress(bytes(range(24)) + bytes(64 * 2**20))
    (tmp_path / "x.mha").write_bytes(head.encode() + b"ElementDataFile = LOCAL\n" + content)

    def ask():
        image = read_image(tmp_path / "x.mha")
        assert image.data[0].numpy().ravel(order="F").tolist() == list(range(24))

    assert peak(ask) < LITTLE


def damaged(tmp_path, kind):
    """A file with one fault, and what its error names."""
    nifti = bytearray(nib.Nifti1Image(VALUES, np.eye(4)).to_bytes())
    patches = {
        "many voxels": (40, "<4h", (3, 32767, 32767, 32767)),
        "seven axes": (40, "<8h", (7, 32767, 7, 32767, 7, 32767, 7, 32767)),
        "negative size": (40, "<4h", (3, 5, -6, 7)),
        "far offset": (108, "<f", (1e30,)),
        "infinite offset": (108, "<f", (np.inf,)),
        "unknown type": (70, "<h", (999,)),
    }
    if kind in patches:
        at, code, values = patches[kind]
        struct.pack_into(code, nifti, at, *values)
        return "a.nii", bytes(nifti)
    return {
        "no header": ("a.nii", bytes(nifti[:4])),
        "36 TB": ("a.npy", npy_header((100000, 100000, 1000)) + bytes(64)),
        "open header": ("a.npy", b"\x93NUMPY\x01\0" + struct.pack("<H", 2000) + b"(" * 2000),
        "half an archive": ("a.npz", b"PK\x03\x04"),
        "half a TIFF": ("a.tif", b"II*\0"),
    }[kind]


KINDS = [
    "many voxels", "seven axes", "negative size", "far offset", "infinite offset", "unknown type",
    "no header", "36 TB", "open header", "half an archive", "half a TIFF",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_damage_of_every_kind_is_one_sentence_with_the_name(tmp_path, kind):
    name, content = damaged(tmp_path, kind)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"^{name}") as caught:
        read_image(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_name_that_no_file_can_have_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="cannot be looked up"):
        read_image(tmp_path / ("x" * 5000 + ".nii"))


def test_an_image_counts_as_the_floats_that_it_becomes(tmp_path, monkeypatch):
    (tmp_path / "x").write_bytes(b"")
    monkeypatch.setattr(bounds, "UNPACKED_BYTES", 4 * 105)
    for itemsize in (1, 2, 4):
        assert bounds.require_bounded(tmp_path / "x", (3, 5, 7), itemsize) == itemsize * 105
        with pytest.raises(InputError, match="promises 3 x 5 x 7 x 2 values"):
            bounds.require_bounded(tmp_path / "x", (3, 5, 7, 2), itemsize)
    with pytest.raises(InputError, match="promises 3 x 5 x 7 values"):
        bounds.require_bounded(tmp_path / "x", (3, 5, 7), 8)


def test_voxels_without_a_stated_offset_follow_the_header(tmp_path):
    content = bytearray(nib.Nifti1Image(VALUES, np.eye(4)).to_bytes())
    struct.pack_into("<f", content, 108, 0)
    (tmp_path / "a.nii").write_bytes(content)
    np.testing.assert_array_equal(read_image(tmp_path / "a.nii").data[0], VALUES)
    struct.pack_into("<f", content, 108, 100)
    (tmp_path / "a.nii").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.nii is damaged"):
        read_image(tmp_path / "a.nii")
