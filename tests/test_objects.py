"""Images of other libraries keep their values and their place."""

import sys
from types import ModuleType

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image as Pillow

from voxplain.errors import InputError
from voxplain.image import Image

AFFINE = np.array([[0, -2.0, 0, 9], [1.5, 0, 0, -8], [0, 0, 3.0, 4], [0, 0, 0, 1]])
VALUES = np.random.default_rng(0).random((4, 5, 6)).astype(np.float32)


def test_a_meta_tensor_keeps_its_affine_and_is_a_plain_tensor():
    image = Image.from_array(MetaTensor(torch.from_numpy(VALUES)[None], affine=AFFINE))
    np.testing.assert_array_equal(image.data[0], VALUES)
    np.testing.assert_allclose(image.grid.affine, AFFINE)
    assert type(image.data) is torch.Tensor
    assert (image.grid.unit, image.grid.code) == ("mm", 1)
    with pytest.raises(InputError, match="states its own spacing"):
        Image.from_array(MetaTensor(torch.from_numpy(VALUES)[None], affine=AFFINE), spacing=1)


def test_a_meta_tensor_in_lps_is_turned_and_one_from_nowhere_has_no_place():
    tensor = torch.from_numpy(VALUES)[None]
    lps = MetaTensor(tensor, affine=np.diag([-1, -1, 1, 1]) @ AFFINE, meta={"space": "LPS"})
    np.testing.assert_allclose(Image.from_array(lps).grid.affine, AFFINE)
    nowhere = Image.from_array(MetaTensor(tensor), spacing=2)
    assert nowhere.grid.code == 0
    assert nowhere.grid.spacing == (2, 2, 2)


def test_a_flat_meta_tensor_may_have_an_affine_of_its_two_axes():
    flat = MetaTensor(torch.ones(1, 4, 5), affine=np.array([[0, 2.0, 7], [3, 0, 8], [0, 0, 1]]))
    flat.affine = torch.tensor([[0, 2.0, 7], [3, 0, 8], [0, 0, 1]])
    grid = Image.from_array(flat).grid
    np.testing.assert_allclose(grid.world((1, 2)), [7 + 4, 8 + 3, 0])


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image, nib.MGHImage])
def test_an_image_of_nibabel_is_what_its_file_would_be(kind):
    image = Image.from_array(kind(VALUES, AFFINE))
    np.testing.assert_array_equal(image.data[0], VALUES)
    np.testing.assert_allclose(image.grid.affine, AFFINE, atol=1e-5)
    channels = Image.from_array(nib.Nifti1Image(np.stack([VALUES, -VALUES], -1), AFFINE))
    np.testing.assert_array_equal(channels.data, np.stack([VALUES, -VALUES]))
    assert Image.from_array(kind(VALUES[:, :1], AFFINE)).rank == 2


def test_a_picture_of_pillow_is_rows_by_columns_without_sides():
    colors = (VALUES[:, :, :3] * 255).astype(np.uint8)
    image = Image.from_array(Pillow.fromarray(colors), spacing=0.5)
    np.testing.assert_array_equal(image.data.numpy(), np.moveaxis(colors, -1, 0))
    assert image.channels == ("red", "green", "blue")
    assert image.grid.spacing == (0.5, 0.5)
    assert image.grid.orientation == ""


class TorchioImage:
    """The part of an image of TorchIO that is read: ``(C, x, y, z)`` and an affine."""

    __module__ = "torchio.data.image"
    data = torch.from_numpy(VALUES)[None]
    affine = AFFINE


class SimpleItkImage:
    """The part of an image of SimpleITK that is read."""

    __module__ = "SimpleITK.SimpleITK"

    def __init__(self, array, spacing, origin, direction, components=1):
        self.array, self.components = array, components
        self.GetSpacing, self.GetOrigin = lambda: spacing, lambda: origin
        self.GetDirection, self.GetDimension = lambda: direction, lambda: len(spacing)
        self.GetNumberOfComponentsPerPixel = lambda: components


@pytest.fixture
def _simpleitk(monkeypatch):
    module = ModuleType("SimpleITK")
    module.GetArrayFromImage = lambda image: image.array
    monkeypatch.setitem(sys.modules, "SimpleITK", module)


def test_an_image_of_torchio_keeps_its_affine():
    image = Image.from_array(TorchioImage())
    np.testing.assert_array_equal(image.data[0], VALUES)
    np.testing.assert_allclose(image.grid.affine, AFFINE)


@pytest.mark.usefixtures("_simpleitk")
def test_an_image_of_simpleitk_is_turned_from_lps():
    place = (1.5, 2.0, 3.0), (-9.0, 8.0, 4.0), (0, 1, 0, -1, 0, 0, 0, 0, 1)
    image = Image.from_array(SimpleItkImage(VALUES.T, *place))
    np.testing.assert_array_equal(image.data[0], VALUES)
    np.testing.assert_allclose(image.grid.affine, AFFINE)
    colors = np.stack([VALUES.T, -VALUES.T], -1)
    np.testing.assert_array_equal(
        Image.from_array(SimpleItkImage(colors, *place, components=2)).data,
        np.stack([VALUES, -VALUES]),
    )
    flat = Image.from_array(SimpleItkImage(VALUES[0].T, (2.0, 3.0), (5.0, 6.0), (0, -1, 1, 0)))
    # The first axis goes along +y of LPS, the second along -x.
    np.testing.assert_allclose(flat.grid.world((1, 2)), [-(5 - 6), -(6 + 2), 0])


@pytest.mark.parametrize(
    "array",
    [
        VALUES[None, ::-1],
        VALUES.astype(">f4")[None],
        VALUES.astype(np.float16)[None, :, ::-1],
        (VALUES * 1000).astype(">u2")[None],
        np.asfortranarray(VALUES)[None],
        torch.from_numpy(VALUES)[None].flip(2),
        VALUES[None].tolist(),
    ],
)
def test_arrays_of_any_layout_keep_their_values(array):
    values = np.asarray(array).astype(np.float32)
    np.testing.assert_array_equal(Image.from_array(array).data.float(), values)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (VALUES[None].astype(complex), "complex numbers"),
        (torch.zeros(1, 2, 3, dtype=torch.complex64), "complex numbers"),
        (VALUES[None] > 0, "true and false"),
        (np.zeros((1, 0, 4)), "without voxels"),
        (np.zeros((0, 3, 4)), "holds no voxels"),
        (np.array([["a"]]), "real numbers"),
    ],
)
def test_arrays_that_are_no_image_are_refused(array, words):
    with pytest.raises(InputError, match=words):
        Image.from_array(array)


@pytest.mark.parametrize(("sform", "qform"), [(1, 0), (0, 1), (2, 1), (1, 3), (0, 4)])
def test_the_code_is_that_of_the_form_that_is_used(sform, qform):
    file = nib.Nifti1Image(VALUES, AFFINE)
    file.set_sform(AFFINE if sform else None, sform)
    file.set_qform(AFFINE if qform else None, qform)
    image = Image.from_array(file)
    assert image.grid.code == (sform or qform)
    np.testing.assert_allclose(image.grid.affine, AFFINE, atol=1e-5)


@pytest.mark.parametrize(("unit", "scale"), [("meter", 1e3), ("mm", 1), ("micron", 1e-3)])
@pytest.mark.parametrize("seconds", ["unknown", "sec", "msec"])
def test_places_in_other_units_come_in_millimeters(unit, scale, seconds):
    file = nib.Nifti1Image(VALUES, AFFINE)
    file.set_sform(AFFINE, 1)
    file.header.set_xyzt_units(unit, seconds)
    placed = Image.from_array(file).grid
    np.testing.assert_allclose(placed.affine[:3], scale * AFFINE[:3], rtol=1e-6)
    np.testing.assert_allclose(placed.affine[3], [0, 0, 0, 1])


@pytest.mark.parametrize(
    ("shape", "flat"), [((4, 5, 1), (4, 5)), ((4, 1, 6), (4, 6)), ((1, 5, 1), (1, 5)),
                        ((1, 1, 6), (1, 6)), ((1, 1, 1), (1, 1))],
)  # fmt: skip
def test_one_slice_is_cut_along_its_last_axis_of_length_one(shape, flat):
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    image = Image.from_array(nib.Nifti1Image(values, AFFINE))
    assert image.grid.shape == flat
    np.testing.assert_array_equal(image.data[0].numpy().ravel(), values.ravel())
    last, kept = (side - 1 for side in flat), iter(range(3))
    through = max(axis for axis in range(3) if shape[axis] == 1)
    index = [0 if axis == through else next(last) for axis in kept]
    place = (AFFINE @ [*index, 1])[:3]
    np.testing.assert_allclose(image.grid.world([side - 1 for side in flat]), place, atol=1e-5)
