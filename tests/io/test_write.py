"""Writing NIfTI: affine, header, bytes, and the result of another reader."""

import gzip
import json
import struct

import nibabel as nib
import numpy as np
import pytest
import torch
from sidecar_example import sidecar

from voxplain.errors import InputError
from voxplain.image import Grid, Image
from voxplain.io import read_image, read_mask, write_image, write_labels, write_map
from voxplain.records.atomic import atomic_write, sha256
from voxplain.records.names import dataset_description, map_name

AFFINE = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.2, -0.3, 0.4) @ np.diag([-0.8, 1.2, 3.0]), [5, -60, 33]
)
GRID = Grid((6, 7, 8), AFFINE, code=2)
MAP = torch.randn(1, 6, 7, 8, generator=torch.Generator().manual_seed(0))


def test_a_map_is_read_back_bit_identical_on_the_same_grid(tmp_path):
    path = write_map(MAP, GRID, tmp_path / "deep" / "case.1_attr", sidecar())
    assert path.name == "case.1_attr.nii.gz"
    image = read_image(path)
    assert torch.equal(image.data, MAP)
    assert image.grid.matches(GRID)
    assert image.grid.code == 2
    facts = json.loads((path.parent / "case.1_attr.json").read_text())
    assert facts["Method"] == "integrated_gradients"


def test_header_has_both_forms_millimeters_and_a_symmetric_range(tmp_path):
    header = nib.load(write_map(MAP, GRID, tmp_path / "m", sidecar())).header
    np.testing.assert_allclose(header.get_sform(), AFFINE, atol=1e-5)
    np.testing.assert_allclose(header.get_qform(), AFFINE, atol=1e-4)
    assert (header["sform_code"], header["qform_code"]) == (2, 2)
    assert header.get_xyzt_units()[0] == "mm"
    limit = np.percentile(MAP.abs().numpy(), 99.5)
    assert float(header["cal_max"]) == pytest.approx(limit)
    assert float(header["cal_min"]) == pytest.approx(-limit)
    assert header.get_data_dtype() == np.float32
    assert header["descrip"].item() == b"integrated_gradients"
    assert header["intent_code"] == 0
    assert len(header.extensions) == 0


def test_sizes_are_millimeters_only_where_they_are_known(tmp_path):
    image = torch.rand(1, 4, 5)
    for spacing, unit in ((0.4, "mm"), (None, "unknown")):
        path = write_map(image, Grid.picture((4, 5), spacing), tmp_path / unit, sidecar())
        assert nib.load(path).header.get_xyzt_units()[0] == unit


def test_unsigned_range_begins_at_zero_and_a_sparse_map_still_has_one(tmp_path):
    sparse = torch.zeros_like(MAP)
    sparse[0, 1, 2, 3] = 5
    header = nib.load(write_map(sparse, GRID, tmp_path / "m", sidecar(sign="positive"))).header
    assert (float(header["cal_min"]), float(header["cal_max"])) == (0, 5)


def test_channels_come_last_and_two_dimensions_are_one_slice_and_an_array(tmp_path):
    four = torch.randn(3, 6, 7, 8)
    assert nib.load(write_map(four, GRID, tmp_path / "m", sidecar())).shape == (6, 7, 8, 3)
    assert torch.equal(read_image(tmp_path / "m.nii.gz").data, four)
    flat_grid = Grid((6, 7), AFFINE)
    for flat in (torch.randn(1, 6, 7), torch.randn(3, 6, 7)):
        path = write_map(flat, flat_grid, tmp_path / "flat", sidecar())
        assert nib.load(path).shape[:3] == (6, 7, 1)
        np.testing.assert_array_equal(np.load(tmp_path / "flat.npy"), flat)
        image = read_image(path)
        assert torch.equal(image.data, flat)
        assert image.grid.matches(flat_grid)


def test_the_maximum_lies_at_the_same_place_in_another_reader(tmp_path):
    path = write_map(MAP, GRID, tmp_path / "m", sidecar())
    content = gzip.decompress(path.read_bytes())  # Read from the bytes of the format.
    rows = [struct.unpack("<4f", content[start : start + 16]) for start in (280, 296, 312)]
    stored = np.frombuffer(content[352:], "<f4").reshape((6, 7, 8), order="F")
    index = np.unravel_index(stored.argmax(), stored.shape)
    expected = np.unravel_index(int(MAP[0].argmax()), GRID.shape)
    np.testing.assert_allclose(np.array(rows) @ [*index, 1], GRID.world(expected), atol=1e-4)


def test_the_same_map_gives_the_same_bytes_under_any_name(tmp_path):
    one = write_map(MAP, GRID, tmp_path / "a", sidecar())
    other = write_map(MAP.clone(), GRID, tmp_path / "b", sidecar())
    assert one.read_bytes() == other.read_bytes()
    assert one.read_bytes()[3] == 0  # No name in the gzip header.
    assert one.read_bytes()[4:8] == b"\0\0\0\0"  # No time.


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_map_that_is_not_finite_is_not_written(tmp_path, bad):
    broken = MAP.clone()
    broken[0, 0, 0, 0] = bad
    with pytest.raises(InputError, match="1 of 336 values are NaN or infinite"):
        write_map(broken, GRID, tmp_path / "m", sidecar())
    with pytest.raises(InputError, match="does not lie on the grid"):
        write_map(MAP, Grid.default((6, 7, 9)), tmp_path / "m", sidecar())
    assert not list(tmp_path.iterdir())


def test_sheared_grid_keeps_its_sform_and_claims_no_qform(tmp_path):
    sheared = AFFINE.copy()
    sheared[:3, 2] += 0.3 * sheared[:3, 1]
    path = write_map(MAP, Grid(GRID.shape, sheared), tmp_path / "m", sidecar())
    assert nib.load(path).header["qform_code"] == 0
    assert read_image(path).grid.matches(Grid(GRID.shape, sheared))


def test_code_zero_of_a_volume_is_kept_only_where_readers_assume_that_affine(tmp_path):
    nib.save(nib.Nifti1Image(MAP[0].numpy(), None), tmp_path / "bare.nii.gz")
    with pytest.warns(UserWarning, match="no orientation"):
        grid = read_image(tmp_path / "bare.nii.gz").grid
    header = nib.load(write_map(MAP, grid, tmp_path / "m", sidecar())).header
    assert (header["sform_code"], header["qform_code"]) == (0, 0)
    np.testing.assert_allclose(nib.load(tmp_path / "m.nii.gz").affine, grid.affine)
    part = grid.sub((1, 1, 1), (2, 2, 2), (3, 3, 3))
    path = write_map(torch.ones(1, 3, 3, 3), part, tmp_path / "part", sidecar())
    np.testing.assert_allclose(nib.load(path).affine, part.affine)


def test_whole_numbers_are_stored_exactly_and_fractions_to_a_thousandth(tmp_path):
    whole = Image(torch.randint(-3024, 3071, (2, 6, 7, 8)).float(), GRID)
    back = read_image(write_image(whole, tmp_path / "i.nii.gz"))
    assert nib.load(tmp_path / "i.nii.gz").get_data_dtype() == np.int16
    assert torch.equal(back.data, whole.data)
    fractions = Image(MAP * 1000 + 1e4, GRID)
    back = read_image(write_image(fractions, tmp_path / "f.nii.gz"))
    assert nib.load(tmp_path / "f.nii.gz").get_data_dtype() == np.int16
    span = float(fractions.data.max() - fractions.data.min())
    assert (back.data - fractions.data).abs().max() < 1e-4 * span
    # A header holds the intercept in float32, too coarse for a small range far from 0.
    far = Image(10_000 + 0.05 * torch.rand(1, 6, 7, 8), GRID)
    back = read_image(write_image(far, tmp_path / "far.nii.gz"))
    assert torch.equal(back.data, far.data)
    constant = Image(torch.full((1, 6, 7, 8), 0.5), GRID)
    assert torch.equal(read_image(write_image(constant, tmp_path / "c.nii.gz")).data, constant.data)


@pytest.mark.parametrize(
    ("top", "kind"), [(3, np.uint8), (300, np.int16), (70000, np.int32), (2**31 + 7, np.int64)]
)
def test_labels_are_stored_in_the_smallest_type(tmp_path, top, kind):
    labels = torch.randint(0, top, GRID.shape)
    labels[0, 0, 0] = top
    path = write_labels(labels, GRID, tmp_path / "l.nii.gz")
    assert nib.load(path).get_data_dtype() == kind
    assert torch.equal(read_mask(path, GRID), labels)


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = atomic_write(tmp_path / "a" / "x.json", "old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        atomic_write(path, "new")
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_hash_is_of_content_not_of_names(tmp_path):
    for name, text in (("a/1", "x"), ("a/2", "y"), ("b/7", "y"), ("b/9", "x")):
        atomic_write(tmp_path / name, text)
    assert sha256(tmp_path / "a") == sha256(tmp_path / "b")
    assert sha256(tmp_path / "a/1") == sha256(tmp_path / "b/9")
    one, other = tmp_path / "a/1", tmp_path / "a/2"
    assert sha256([one, other]) != sha256([other, one])


def test_names_keep_what_is_safe_and_never_collide():
    assert map_name("p01", "1", "saliency") == "p01_label-1_desc-saliency_attr"
    with_layer = map_name("p01", "1", "layer_conductance", "model.1.submodule.0")
    assert with_layer == "p01_label-1_desc-layer_conductance-model.1.submodule.0_attr"
    names = [
        map_name(case, "1", "saliency") for case in ("a b", "a/b", "a-b", "../b", "ä-b", "x" * 300)
    ]
    assert len(set(names)) == len(names)
    for name in names:
        assert "/" not in name
        assert " " not in name
        assert not name.startswith(".")
        assert name.isascii()
        assert len(name) < 200


def test_dataset_description_is_a_derivative():
    description = dataset_description("0.1", ["hash:abc"])
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"] == [{"Name": "voxplain", "Version": "0.1"}]
