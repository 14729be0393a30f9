from __future__ import annotations

import numpy as np
import pytest
from skimage.color import rgb2lab

from voxplain.viz import colors
from voxplain.viz.overlay import Overlay
from voxplain.viz.planes import AXIAL, CORONAL, PLANES, SAGITTAL, plane_of, signed_projection
from voxplain.viz.scale import bounding_box, foreground, gray_window, robust_limit, strongest
from voxplain.viz.volume import DisplayVolume

# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
DEUTERANOPIA = np.array(
    [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ]
)


@pytest.mark.parametrize(
    ("plane", "index", "corner"),
    [
        (AXIAL, (9, 7, 3), (0, 0)),
        (CORONAL, (9, 4, 5), (0, 0)),
        (SAGITTAL, (4, 7, 5), (0, 0)),
        (AXIAL, (0, 0, 3), (-1, -1)),
        (SAGITTAL, (4, 0, 0), (-1, -1)),
    ],
)
def test_right_and_front_are_left_and_top_is_up(plane, index, corner) -> None:
    volume = np.zeros((10, 8, 6))
    volume[index] = 1
    displayed = plane.cut(volume, index[plane.axis])
    assert displayed[corner] == 1
    assert displayed[plane.pixel(index, volume.shape)] == 1
    assert displayed.sum() == 1


def test_letters_of_the_radiological_convention() -> None:
    assert (AXIAL.left, AXIAL.right, AXIAL.top, AXIAL.bottom) == ("R", "L", "A", "P")
    assert (CORONAL.left, CORONAL.top) == ("R", "S")
    assert (SAGITTAL.left, SAGITTAL.right) == ("A", "P")
    assert [plane_of(shape) for shape in ((5, 5, 1), (5, 1, 5), (1, 5, 5))] == list(PLANES)


def test_projection_keeps_the_sign_of_the_strongest() -> None:
    values = np.zeros((4, 3, 2))
    values[1, 1, 0], values[1, 1, 1] = 2, -3
    values[0, 0, 0] = np.nan
    projection = signed_projection(values, 2)
    assert projection[1, 1] == -3
    assert np.isfinite(projection).all()


def test_limit_is_a_percentile_of_the_magnitude() -> None:
    values = np.linspace(-1, 1, 20_001)
    assert robust_limit(values) == pytest.approx(0.995, abs=1e-3)
    assert robust_limit(values, 3 * values) == pytest.approx(2.985, abs=3e-3)
    with_nan = np.concatenate([values, [np.nan]])
    assert robust_limit(with_nan) == pytest.approx(robust_limit(values))


def test_limit_of_sparse_and_empty_maps() -> None:
    sparse = np.zeros(10_000)
    sparse[:10] = -4
    assert robust_limit(sparse) == 4
    assert robust_limit(np.zeros(5)) == 1
    assert robust_limit(np.full(3, np.nan)) == 1


def test_window_and_box_belong_to_the_foreground() -> None:
    image = np.full((20, 20, 20), -1000.0)
    image[5:12, 6:9, 7:15] = np.linspace(20, 80, 7)[:, None, None]
    assert foreground(image).sum() == 7 * 3 * 8
    box = bounding_box(foreground(image), margin=1)
    assert box == (slice(4, 13), slice(5, 10), slice(6, 16))
    low, high = gray_window(image)
    assert low == -1000
    assert high == pytest.approx(80, abs=1)
    assert gray_window(np.full((4, 4, 4), 7.0))[0] < 7 < gray_window(np.full((4, 4, 4), 7.0))[1]


def test_strongest_ignores_sign_and_nan() -> None:
    values = np.zeros((3, 4, 5))
    values[2, 1, 3], values[0, 0, 0], values[1, 1, 1] = -5, np.nan, 4
    assert strongest(values) == (2, 1, 3)
    assert strongest(np.asfortranarray(values)) == (2, 1, 3)
    assert strongest(np.zeros((3, 4, 5))) == (1, 2, 2)


def test_both_signs_have_the_same_even_lightness() -> None:
    lightness = [
        rgb2lab(colors.ramp(name)[None] / 255)[0, :, 0] for name in ("positive", "negative")
    ]
    np.testing.assert_allclose(lightness[0], lightness[1], atol=4)
    for values in (*lightness, rgb2lab(colors.ramp("sequential")[None] / 255)[0, :, 0]):
        steps = np.diff(values[::16])
        assert steps.min() > 0
        assert steps.max() < 2 * np.median(steps)


def test_signs_can_be_told_apart_with_deuteranopia() -> None:
    perceived = [np.clip((colors.ramp(n) / 255) ** 2.2 @ DEUTERANOPIA.T, 0, 1) ** (1 / 2.2)
                 for n in ("positive", "negative")]  # fmt: skip
    distance = np.linalg.norm(rgb2lab(perceived[0][None]) - rgb2lab(perceived[1][None]), axis=-1)
    assert distance.min() > 35


def test_near_zero_and_nan_are_transparent_and_signs_differ() -> None:
    rgba = colors.colorize(np.array([0, 0.04, np.nan, 1, -1, 7, -0.5]), 1.0)
    np.testing.assert_array_equal(rgba[:3, 3], 0)
    assert rgba[3, 3] == pytest.approx(colors.OPACITY)
    np.testing.assert_array_equal(rgba[3], rgba[5])
    assert rgba[3, 0] > rgba[3, 2]
    assert rgba[4, 2] > rgba[4, 0]
    assert 0 < rgba[6, 3] < rgba[4, 3]
    plain = colors.colorize(np.array([1.0]), 1.0, "absolute")
    np.testing.assert_allclose(plain[0, :3] * 255, colors.ramp("sequential")[-1])


def test_blend_composites_an_overlay_on_a_background() -> None:
    overlay = np.array([[[1.0, 0, 0, 0.25]]])
    np.testing.assert_allclose(colors.blend(np.array([[0.4]]), overlay), [[[0.55, 0.3, 0.3]]])


def test_a_map_lies_on_the_luminance_of_a_color_picture() -> None:
    """Green is brighter than red, and red than blue (ITU-R BT.709)."""
    colors = np.eye(3, dtype=np.float32)[:, :, None, None]
    picture = DisplayVolume(colors, np.eye(4), "pixel", ("red", "green", "blue"), picture=True)
    overlay = Overlay(DisplayVolume(colors[:1], np.eye(4), "pixel", picture=True), picture)
    np.testing.assert_allclose(
        overlay.backdrop[:, 0, 0], [0.7 * w for w in (0.2126, 0.7152, 0.0722)]
    )
    np.testing.assert_array_equal(overlay.picture()[:, 0, 0], np.eye(3))


def test_the_foreground_begins_at_four_percent_of_the_range() -> None:
    image = np.zeros((20, 21, 22), np.float32)
    image[4:16, 4:16, 4:16] = 100
    image[4:16, 4:16, 4] = 6
    image[4:16, 4:16, 5] = 2
    expected = image > 4
    np.testing.assert_array_equal(foreground(image), expected)
    np.testing.assert_array_equal(foreground(-image), expected)
