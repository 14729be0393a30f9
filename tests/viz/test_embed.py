from __future__ import annotations

import base64
import gzip
import io
import re
import zlib

import nibabel
import numpy as np
import pytest
from PIL import Image as Pillow

from voxplain.viz.drawing import png
from voxplain.viz.embed import (
    figure_uri,
    image_nifti,
    image_uri,
    labels_nifti,
    map_bytes,
    map_nifti,
    outline,
    picture_uri,
    shrink_factor,
)
from voxplain.viz.volume import DisplayVolume

AFFINE = np.array([[2.0, 0.1, 0, -20], [-0.1, 2, 0, 5], [0, 0, 3, 7], [0, 0, 0, 1]])


def decoded(text: str) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text)))


def test_a_map_is_kept_to_half_a_step_and_saturates_at_the_limit() -> None:
    values = np.random.default_rng(0).normal(size=(9, 8, 7)).astype(np.float32)
    values[0, 0, 0], values[0, 0, 1] = np.nan, -50
    file = decoded(map_nifti(values, AFFINE, limit=2.0))
    assert file.get_data_dtype() == np.int8
    decoded_values = file.get_fdata()
    clipped = np.clip(np.nan_to_num(values), -2, 2)
    np.testing.assert_allclose(decoded_values, clipped, atol=2 / 127 / 2 + 1e-6)
    np.testing.assert_allclose(file.affine, AFFINE, atol=1e-5)
    np.testing.assert_array_equal(np.sign(decoded_values)[np.abs(values) > 0.02],
                                  np.sign(values)[np.abs(values) > 0.02])  # fmt: skip


def test_an_image_keeps_source_units() -> None:
    values = np.linspace(-1000, 2000, 9 * 8 * 7).reshape(9, 8, 7)
    decoded_values = decoded(image_nifti(values, AFFINE)).get_fdata()
    np.testing.assert_allclose(decoded_values, values, atol=3000 / 255)


def test_labels_are_exact_and_have_the_label_intent() -> None:
    labels = np.arange(24).reshape(4, 3, 2)
    file = decoded(labels_nifti(labels, AFFINE))
    np.testing.assert_array_equal(file.get_fdata(), labels)
    assert int(file.header["intent_code"]) == 1002


def test_the_same_map_gives_the_same_text() -> None:
    values = np.random.default_rng(1).normal(size=(5, 5, 5))
    assert map_nifti(values, AFFINE, 1.0) == map_nifti(values, AFFINE, 1.0)


def test_flat_maps_are_deflated_bytes_in_reading_order() -> None:
    values = np.array([[0.0, 1, -1], [0.5, np.nan, 9]])
    steps = np.frombuffer(zlib.decompress(base64.b64decode(map_bytes(values, 1.0))), np.int8)
    np.testing.assert_array_equal(steps, [0, 127, -127, 64, 0, 127])


def test_the_outline_of_a_box_encloses_its_pixels() -> None:
    mask = np.zeros((10, 12), bool)
    mask[2:5, 3:9] = True
    numbers = [float(text) for text in re.findall(r"-?[\d.]+", outline(mask))]
    x, y = np.array(numbers[::2]), np.array(numbers[1::2])
    assert (x.min(), x.max()) == (3, 9)
    assert (y.min(), y.max()) == (2, 5)
    assert outline(np.zeros((4, 4), bool)) == ""
    whole = outline(np.ones((4, 4), bool))
    assert whole.startswith("M")


def test_shrinking_starts_with_the_finest_axis() -> None:
    volume = DisplayVolume(np.zeros((1, 512, 512, 300), np.uint8), np.diag([0.7, 0.7, 1.5, 1]))
    factor = shrink_factor(volume, 4_000_000)
    assert np.prod(np.array(volume.shape) // factor) <= 4_000_000
    assert factor[0] >= factor[1] > factor[2]
    assert factor[0] - factor[1] <= 1
    assert shrink_factor(volume, 10**9) == (1, 1, 1)
    thin = DisplayVolume(np.zeros((1, 3000, 2500, 1), np.uint8), np.eye(4))
    assert shrink_factor(thin, 2_000_000)[2] == 1


def test_pictures_are_lossless_and_figures_small() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3)) / 255
    data = base64.b64decode(picture_uri(picture).split(",")[1])
    np.testing.assert_allclose(np.asarray(Pillow.open(io.BytesIO(data))) / 255, picture)
    figure = Pillow.effect_noise((600, 400), 60).convert("RGB")
    uri = figure_uri(figure)
    assert uri.startswith("data:image/webp")
    assert len(uri) < len(png(figure))
    assert image_uri(png(figure)).startswith("data:image/png")


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_constant_images_do_not_divide_by_zero(value: float) -> None:
    file = decoded(image_nifti(np.full((3, 3, 3), value), AFFINE))
    np.testing.assert_allclose(file.get_fdata(), value, atol=1e-6)
