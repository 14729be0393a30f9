from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image as Pillow

from voxplain.viz.figures import map_figure, png
from voxplain.viz.overlay import Overlay, is_color, rgb
from voxplain.viz.volume import DisplayVolume

AFFINE = np.diag([2.0, 1.5, 3.0, 1])


def overlay(values: np.ndarray, **facts) -> Overlay:
    image = DisplayVolume(np.random.default_rng(0).uniform(10, 90, (1, *values.shape[1:])), AFFINE)
    return Overlay(DisplayVolume(values, AFFINE), image, **facts)


def most_colorful(axes) -> tuple[int, int]:
    """Row and column of the most colorful pixel of a panel."""
    picture = np.asarray(axes.images[0].get_array())
    return np.unravel_index(np.ptp(picture, axis=-1).argmax(), picture.shape[:2])


def test_planes_pass_through_the_strongest_voxel() -> None:
    values = np.zeros((1, 12, 14, 10), np.float32)
    values[0, 3, 5, 7] = -2
    values[0, 9, 2, 1] = 1
    figure = map_figure(overlay(values))
    panels = figure.axes[:3]
    # Rows count from the top, columns from the patient's right (or front).
    assert [most_colorful(axes) for axes in panels] == [(8, 8), (2, 8), (2, 8)]
    for axes in panels:
        pixel = np.asarray(axes.images[0].get_array())[most_colorful(axes)]
        assert pixel[2] > pixel[0], "evidence against is blue"
    assert panels[0].get_xlabel() == "axial, z = 21 mm"


def test_projections_show_voxels_outside_of_the_planes() -> None:
    values = np.zeros((1, 12, 14, 10), np.float32)
    values[0, 3, 5, 7], values[0, 9, 2, 1] = -2, 2
    figure = map_figure(overlay(values))
    axial = np.asarray(figure.axes[3].images[0].get_array())
    assert axial[11, 2, 0] > axial[11, 2, 2]
    assert axial[8, 8, 2] > axial[8, 8, 0]


def test_panels_keep_the_proportions_of_the_patient() -> None:
    figure = map_figure(overlay(np.ones((1, 12, 14, 10), np.float32)))
    width, height = figure.get_size_inches()
    for axes, size in zip(figure.axes[:3], ((24, 21), (24, 30), (21, 30)), strict=True):
        box = axes.get_position()
        assert box.width * width / (box.height * height) == pytest.approx(size[0] / size[1])


def test_channels_have_a_row_of_their_own_on_one_scale() -> None:
    values = np.zeros((4, 8, 8, 8), np.float32)
    for channel in range(4):
        values[channel, 4, 4, 4] = channel + 1
    image = DisplayVolume(np.random.default_rng(0).uniform(0, 1, (4, 8, 8, 8)), AFFINE)
    names = ("flair", "t1", "t1ce", "t2")
    figure = map_figure(Overlay(DisplayVolume(values, AFFINE, channels=names), image))
    labels = [axes.get_xlabel() for axes in figure.axes]
    assert labels[6:10] == list(names)
    reach = [np.ptp(np.asarray(axes.images[0].get_array()), axis=-1).max() for axes in figure.axes]
    assert reach[6] < reach[9]


def test_of_many_channels_the_four_strongest_are_shown() -> None:
    values = np.zeros((40, 6, 6, 6), np.float32)
    for channel in (3, 8, 21, 39):
        values[channel, 2, 2, 2] = 1
    figure = map_figure(overlay(values))
    labels = [axes.get_xlabel() for axes in figure.axes]
    assert labels[6:10] == ["channel 3", "channel 8", "channel 21", "channel 39"]


def test_pictures_keep_rows_and_columns() -> None:
    values = np.zeros((1, 20, 30, 1), np.float32)
    values[0, 4, 25, 0] = 1
    picture = DisplayVolume(np.full((3, 20, 30, 1), 100.0), np.eye(4), "pixel", picture=True)
    figure = map_figure(Overlay(DisplayVolume(values, np.eye(4), "pixel", picture=True), picture))
    assert most_colorful(figure.axes[1]) == (4, 25)
    assert most_colorful(figure.axes[2]) == (4, 25)
    assert [axes.get_xlabel() for axes in figure.axes[:3]] == [
        "image",
        "image and map",
        "map alone",
    ]
    assert not [text for axes in figure.axes[:3] for text in axes.texts], "no patient directions"


def test_a_slice_of_a_patient_hangs_like_a_volume() -> None:
    values = np.zeros((1, 12, 14, 1), np.float32)
    values[0, 11, 13, 0] = 1
    figure = map_figure(Overlay(DisplayVolume(values, AFFINE)))
    assert most_colorful(figure.axes[1]) == (0, 0)
    assert {text.get_text() for text in figure.axes[1].texts} == {"R", "L", "A", "P"}


def test_empty_maps_and_nan_are_drawn() -> None:
    empty = np.zeros((1, 6, 6, 6), np.float32)
    assert png(map_figure(overlay(empty)))[:4] == b"\x89PNG"
    empty[0, 1, 1, 1] = np.nan
    mask = np.zeros((6, 6, 6), bool)
    assert png(map_figure(overlay(empty, prediction=mask, reference=mask)))[:4] == b"\x89PNG"


def test_outlines_have_two_styles_and_no_metadata_is_written() -> None:
    mask = np.zeros((12, 14, 10), bool)
    mask[3:9, 3:9, 3:9] = True
    values = np.zeros((1, 12, 14, 10), np.float32)
    values[0, 5, 5, 5] = 1
    figure = map_figure(overlay(values, prediction=mask, reference=mask, title="A title"))
    styles = [line.get_linestyle()[0] for line in figure.axes[0].collections]
    assert len(styles) == 2
    assert styles[0] != styles[1]
    with Pillow.open(io.BytesIO(png(figure))) as picture:
        assert not {"Software", "Author", "Creation Time"} & set(picture.info)


def test_color_pictures_are_recognized_by_their_channels() -> None:
    data = np.array([10.0, 20, 250]).reshape(3, 1, 1, 1)
    assert is_color(DisplayVolume(data, np.eye(4), "pixel", ("red", "green", "blue"), True))
    assert not is_color(DisplayVolume(data, np.eye(4), "pixel", ("t1", "t2", "flair"), True))
    assert not is_color(DisplayVolume(data, np.eye(4), "mm", ("red", "green", "blue"), False))
    pixels = rgb(DisplayVolume(data, np.eye(4), "pixel", ("red", "green", "blue"), True))
    np.testing.assert_allclose(pixels[0, 0, 0], np.array([10, 20, 250]) / 255)


def test_the_global_state_of_matplotlib_is_not_touched() -> None:
    code = (
        "import sys, numpy as np;"
        "from voxplain.viz.figures import map_figure;"
        "from voxplain.viz.overlay import Overlay;"
        "from voxplain.viz.volume import DisplayVolume;"
        "map_figure(Overlay(DisplayVolume(np.ones((1, 4, 4, 4)), np.eye(4))));"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
