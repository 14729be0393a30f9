"""NRRD, MetaImage, MGH and pairs in: values and places against headers written by hand."""

import bz2
import gzip
import zlib

import nibabel as nib
import numpy as np
import pytest

from voxplain.errors import InputError, VoxplainWarning
from voxplain.io import read_image, read_mask

VALUES = np.random.default_rng(0).integers(-1000, 1000, (5, 6, 7)).astype("<i2")
TURN = nib.eulerangles.euler2mat(0.2, -0.3, 0.4)
SPACING = np.array([0.8, 1.2, 3.0])
ORIGIN = np.array([5.0, -60.0, 33.0])
LPS = nib.affines.from_matvec(TURN @ np.diag(SPACING), ORIGIN)
RAS = np.diag([-1, -1, 1, 1]) @ LPS


def meta_header(**changes):
    fields = {
        "ObjectType": "Image",
        "NDims": 3,
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False",
        "TransformMatrix": " ".join(f"{part:.9f}" for part in TURN.T.ravel()),
        "Offset": " ".join(map(str, ORIGIN)),
        "ElementSpacing": " ".join(map(str, SPACING)),
        "DimSize": "5 6 7",
        "ElementType": "MET_SHORT",
    }
    lines = [f"{name} = {value}" for name, value in (fields | changes).items()]
    return "\n".join(lines).encode() + b"\n"


def write_mha(path, content=None, **changes):
    content = VALUES.tobytes(order="F") if content is None else content
    path.write_bytes(meta_header(**changes) + b"ElementDataFile = LOCAL\n" + content)
    return path


def nrrd_header(**changes):
    vectors = ["(" + ",".join(f"{part:.9f}" for part in column) + ")" for column in LPS[:3, :3].T]
    fields = {
        "type": "short",
        "dimension": 3,
        "space": "left-posterior-superior",
        "sizes": "5 6 7",
        "space directions": " ".join(vectors),
        "kinds": "domain domain domain",
        "endian": "little",
        "encoding": "raw",
        "space origin": "(5,-60,33)",
    } | {name.replace("_", " "): value for name, value in changes.items()}
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\n".join(["NRRD0004", "# a comment", *lines]).encode() + b"\n\n"


def write_nrrd(path, content=None, **changes):
    content = VALUES.tobytes(order="F") if content is None else content
    path.write_bytes(nrrd_header(**changes) + content)
    return path


def check(path):
    image = read_image(path)
    np.testing.assert_array_equal(image.data[0], VALUES)
    np.testing.assert_allclose(image.grid.affine, RAS, atol=1e-4)
    assert image.grid.unit == "mm"
    assert image.grid.code in (1, 2)


def test_metaimage_in_one_file_two_files_compressed_and_big_endian(tmp_path):
    raw = VALUES.tobytes(order="F")
    check(write_mha(tmp_path / "a.mha"))
    check(write_mha(tmp_path / "b.mha", zlib.compress(raw), CompressedData="True"))
    swapped = VALUES.astype(">i2").tobytes(order="F")
    check(write_mha(tmp_path / "c.mha", swapped, BinaryDataByteOrderMSB="True"))
    (tmp_path / "d.raw").write_bytes(b"header" + raw)
    head = meta_header(HeaderSize=6) + b"ElementDataFile = d.raw\n"
    (tmp_path / "d.mhd").write_bytes(head)
    check(tmp_path / "d.mhd")
    (tmp_path / "d.mhd").write_bytes(head.replace(b"= 6", b"= -1"))
    check(tmp_path / "d.mhd")


def test_metaimage_of_two_axes_and_of_several_channels(tmp_path):
    flat = write_mha(
        tmp_path / "a.mha", VALUES[:, :, 0].tobytes(order="F"), NDims=2, DimSize="5 6",
        TransformMatrix="0 1 -1 0", Offset="5 -60", ElementSpacing="0.8 1.2",
    )  # fmt: skip
    image = read_image(flat)
    np.testing.assert_array_equal(image.data[0], VALUES[:, :, 0])
    # The first axis goes along +y of LPS, the second along -x.
    np.testing.assert_allclose(image.grid.world((1, 0)), [-5, 60 - 0.8, 0], atol=1e-6)
    np.testing.assert_allclose(image.grid.world((0, 1)), [-5 + 1.2, 60, 0], atol=1e-6)
    colors = np.stack([VALUES, VALUES + 1, VALUES + 2]).astype("<i2")
    path = write_mha(tmp_path / "c.mha", colors.tobytes(order="F"), ElementNumberOfChannels=3)
    np.testing.assert_array_equal(read_image(path).data, colors)


def test_nrrd_raw_packed_big_endian_and_detached(tmp_path):
    raw = VALUES.tobytes(order="F")
    check(write_nrrd(tmp_path / "a.nrrd"))
    check(write_nrrd(tmp_path / "b.nrrd", gzip.compress(raw), encoding="gzip"))
    check(write_nrrd(tmp_path / "c.nrrd", bz2.compress(raw), encoding="bzip2"))
    check(write_nrrd(tmp_path / "d.nrrd", VALUES.astype(">i2").tobytes(order="F"), endian="big"))
    check(write_nrrd(tmp_path / "e.nrrd", b"line\nxx" + raw, line_skip=1, byte_skip=2))
    check(write_nrrd(tmp_path / "f.nrrd", b"anything" + raw, byte_skip=-1))
    (tmp_path / "g.raw").write_bytes(raw)
    check(write_nrrd(tmp_path / "g.nhdr", b"", data_file="g.raw"))


@pytest.mark.parametrize(
    ("space", "signs"), [("right-anterior-superior", (1, 1, 1)), ("LAS", (-1, 1, 1))]
)
def test_spaces_of_nrrd(tmp_path, space, signs):
    image = read_image(write_nrrd(tmp_path / "a.nrrd", space=space))
    np.testing.assert_allclose(image.grid.affine, np.diag([*signs, 1]) @ LPS, atol=1e-4)


def test_a_vector_axis_of_nrrd_is_channels_and_no_space_is_no_orientation(tmp_path):
    colors = np.stack([VALUES, VALUES + 1]).astype("<i2")
    directions = nrrd_header().split(b"space directions: ")[1].split(b"\n")[0].decode()
    path = write_nrrd(
        tmp_path / "a.nrrd", colors.tobytes(order="F"), dimension=4, sizes="2 5 6 7",
        kinds="vector domain domain domain", space_directions=f"none {directions}",
    )  # fmt: skip
    image = read_image(path)
    np.testing.assert_array_equal(image.data, colors)
    np.testing.assert_allclose(image.grid.affine, RAS, atol=1e-4)
    bare = write_nrrd(
        tmp_path / "b.nrrd", space=None, space_directions=None, space_origin=None, kinds=None,
        spacings="0.8 1.2 3",
    )  # fmt: skip
    with pytest.warns(VoxplainWarning, match="no orientation"):
        image = read_image(bare)
    assert image.grid.spacing == pytest.approx(tuple(SPACING))
    assert image.grid.code == 0


def test_a_flat_nrrd_of_itk_names_no_space_and_lies_as_itk_places_it(tmp_path):
    path = write_nrrd(
        tmp_path / "a.nrrd", VALUES[:, :, 0].tobytes(order="F"), dimension=2, sizes="5 6",
        space=None, space_dimension=2, space_directions="(0,2) (-3,0)", space_origin="(5,6)",
        kinds="domain domain",
    )  # fmt: skip
    with pytest.warns(VoxplainWarning, match="no orientation"):
        image = read_image(path)
    np.testing.assert_array_equal(image.data[0], VALUES[:, :, 0])
    np.testing.assert_allclose(image.grid.world((1, 2)), [1, -8, 0])
    # The normal of a flat image is the cross product of its axes, so that it is not mirrored.
    first, second, normal = image.grid.affine[:3, :3].T
    np.testing.assert_allclose(normal, np.cross(first, second) / 6)
    assert image.grid.code == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ElementDataFile": "../secret.raw"}, "one file in the same folder"),
        ({"ElementDataFile": "/etc/hostname"}, "one file in the same folder"),
        ({"ElementDataFile": "LIST"}, "one file in the same folder"),
        ({"ElementDataFile": "none.raw"}, "no such file"),
        ({"ElementType": "MET_OTHER", "ElementDataFile": "LOCAL"}, "MET_OTHER"),
        ({"DimSize": "5 6 8", "ElementDataFile": "LOCAL"}, "cut off"),
        ({"DimSize": "9999 9999 9999", "ElementDataFile": "LOCAL"}, "2 GiB"),
        ({"NDims": 4, "DimSize": "5 6 7 1", "ElementDataFile": "LOCAL"}, "a.mha"),
    ],
)
def test_metaimages_that_cannot_be_read_are_told_in_words(tmp_path, changes, words):
    (tmp_path / "a.mha").write_bytes(meta_header(**changes) + VALUES.tobytes(order="F"))
    with pytest.raises(InputError, match=words):
        read_image(tmp_path / "a.mha")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data_file": "../x.raw"}, "one file in the same folder"),
        ({"encoding": "ascii"}, "save it as raw or gzip"),
        ({"type": "block"}, "no numbers"),
        ({"space": "scanner-xyz"}, "scanner-xyz"),
        ({"sizes": "5 6 8"}, "cut off"),
        ({"sizes": None}, "sizes"),
    ],
)
def test_nrrds_that_cannot_be_read_are_told_in_words(tmp_path, changes, words):
    with pytest.raises(InputError, match=words):
        read_image(write_nrrd(tmp_path / "a.nrrd", **changes))


def test_pairs_and_mgh_lie_where_nibabel_writes_them(tmp_path):
    nib.save(nib.Nifti1Pair(VALUES, RAS), tmp_path / "pair.img")
    check(tmp_path / "pair.img")
    check(tmp_path / "pair.hdr")
    nib.save(nib.MGHImage(VALUES.astype(np.float32), RAS), tmp_path / "a.mgz")
    check(tmp_path / "a.mgz")
    nib.save(nib.AnalyzeImage(VALUES, np.diag([*SPACING, 1])), tmp_path / "old.img")
    with pytest.warns(VoxplainWarning, match="no orientation"):
        image = read_image(tmp_path / "old.hdr")
    assert image.grid.code == 0
    np.testing.assert_array_equal(image.data[0], VALUES)
    (tmp_path / "pair.img").unlink()
    with pytest.raises(InputError, match=r"there is no \.img beside it"):
        read_image(tmp_path / "pair.hdr")


def test_a_mask_may_have_another_format_than_its_image(tmp_path):
    labels = (VALUES > 0) * np.int16(3)
    grid = read_image(write_mha(tmp_path / "a.mha")).grid
    path = write_nrrd(tmp_path / "m.nrrd", labels.astype("<i2").tobytes(order="F"))
    np.testing.assert_array_equal(read_mask(path, grid), labels)


@pytest.mark.parametrize("name", ["BinaryDataByteOrderMSB", "ElementByteOrderMSB"])
@pytest.mark.parametrize(("said", "order"), [("True", ">"), ("False", "<")])
def test_both_names_of_the_byte_order_of_a_metaimage_count(tmp_path, name, said, order):
    changes = {"BinaryDataByteOrderMSB": "False", name: said}
    content = VALUES.astype(f"{order}i2").tobytes(order="F")
    check(write_mha(tmp_path / "a.mha", content, **changes))


@pytest.mark.parametrize("place", [0, 3])
def test_spacings_of_nrrd_count_the_axis_of_channels_too(tmp_path, place):
    colors = np.stack([VALUES, VALUES + 1], axis=place).astype("<i2")
    words = {"sizes": ["5", "6", "7"], "spacings": ["0.8", "1.2", "3"], "kinds": ["space"] * 3}
    words = {name: [*three] for name, three in words.items()}
    for name, word in (("sizes", "2"), ("spacings", "nan"), ("kinds", "list")):
        words[name].insert(place, word)
    path = write_nrrd(
        tmp_path / "a.nrrd", colors.tobytes(order="F"), dimension=4, space=None,
        space_directions=None, space_origin=None, **{n: " ".join(w) for n, w in words.items()},
    )  # fmt: skip
    with pytest.warns(VoxplainWarning, match="no orientation"):
        image = read_image(path)
    assert image.grid.spacing == pytest.approx(tuple(SPACING))
    np.testing.assert_array_equal(image.data, np.moveaxis(colors, place, 0))


def test_distances_of_a_metaimage_come_before_the_sizes_of_its_elements(tmp_path):
    check(write_mha(tmp_path / "a.mha", ElementSize="9 9 9"))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("MET_CHAR", "i1"), ("MET_UINT", "u4"), ("MET_LONG", "i4"), ("MET_LONG_LONG", "i8"),
     ("MET_DOUBLE", "f8")],
)  # fmt: skip
def test_types_of_a_metaimage_have_the_sizes_that_itk_gives_them(tmp_path, name, kind):
    values = np.arange(210).reshape(5, 6, 7) % 100
    content = values.astype(f"<{kind}").tobytes(order="F")
    image = read_image(write_mha(tmp_path / "a.mha", content, ElementType=name))
    np.testing.assert_array_equal(image.data[0], values)
