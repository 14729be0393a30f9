from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image as Pillow

from voxplain.viz import colors
from voxplain.viz.drawing import Sheet, fitted, png, text_width
from voxplain.viz.figures import MapFigure, map_figure
from voxplain.viz.overlay import Overlay, is_color, rgb
from voxplain.viz.panels import Panel
from voxplain.viz.volume import DisplayVolume

AFFINE = np.diag([2.0, 1.5, 3.0, 1])


def overlay(values: np.ndarray, affine: np.ndarray = AFFINE, **facts) -> Overlay:
    image = DisplayVolume(np.random.default_rng(0).uniform(10, 90, (1, *values.shape[1:])), affine)
    return Overlay(DisplayVolume(values, affine), image, **facts)


def most_colorful(panel: Panel) -> tuple[int, int]:
    """Row and column of the most colorful pixel of a panel."""
    picture = panel.picture
    return np.unravel_index(np.ptp(picture, axis=-1).argmax(), picture.shape[:2])


def test_planes_pass_through_the_strongest_voxel() -> None:
    values = np.zeros((1, 12, 14, 10), np.float32)
    values[0, 3, 5, 7] = -2
    values[0, 9, 2, 1] = 1
    panels = map_figure(overlay(values)).rows[0]
    # Rows count from the top, columns from the patient's right (or front).
    assert [most_colorful(panel) for panel in panels] == [(8, 8), (2, 8), (2, 8)]
    assert [panel.crosshair for panel in panels] == [(8, 8), (2, 8), (2, 8)]
    for panel in panels:
        pixel = panel.picture[most_colorful(panel)]
        assert pixel[2] > pixel[0], "evidence against is blue"
    assert panels[0].caption == "axial, z = 21 mm"


def test_the_planes_of_a_tilted_scan_say_so() -> None:
    angle = np.deg2rad(20)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    values = np.zeros((1, 6, 6, 6), np.float32)
    values[0, 1, 2, 3] = 1
    (x, y, z) = (turn @ AFFINE @ [1, 2, 3, 1])[:3]
    captions = [panel.caption for panel in map_figure(overlay(values, turn @ AFFINE)).rows[0]]
    assert captions[0] == f"axial, tilted 20°, at z = {z:.1f} mm"
    assert captions[1] == f"coronal, tilted 20°, at y = {y:.1f} mm".replace("-", "−")
    assert captions[2] == f"sagittal, tilted 20°, at x = {x:.0f} mm"


def test_projections_show_voxels_outside_of_the_planes() -> None:
    values = np.zeros((1, 12, 14, 10), np.float32)
    values[0, 3, 5, 7], values[0, 9, 2, 1] = -2, 2
    axial = map_figure(overlay(values)).rows[1][0].picture
    assert axial[11, 2, 0] > axial[11, 2, 2]
    assert axial[8, 8, 2] > axial[8, 8, 0]


def test_panels_keep_the_proportions_of_the_patient() -> None:
    figure = map_figure(overlay(np.ones((1, 12, 14, 10), np.float32)))
    for box, size in zip(figure.boxes[0], ((24, 21), (24, 30), (21, 30)), strict=True):
        assert box[2] / box[3] == pytest.approx(size[0] / size[1])


def captions_of(figure: MapFigure, size: int = 13) -> list[tuple[int, float, float]]:
    """Row, left and right end of every caption."""
    places = []
    for number, (row, boxes) in enumerate(zip(figure.rows, figure.boxes, strict=True)):
        for panel, (left, _, width, _) in zip(row, boxes, strict=True):
            half = text_width(panel.caption, size) / 2
            places.append((number, left + width / 2 - half, left + width / 2 + half))
    return places


@pytest.mark.parametrize(
    "shape", [(90, 90, 3), (3, 90, 90), (90, 3, 90), (90, 2, 2), (2, 90, 3), (30, 25, 20)]
)
def test_captions_of_thin_slabs_are_neither_cut_nor_meet(shape: tuple[int, int, int]) -> None:
    affine = np.diag([1.0, 1.0, 1.2, 1])
    values = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    figure = map_figure(overlay(values, affine))
    right, row = 0.0, 0
    for number, start, end in captions_of(figure):
        right = right if number == row else 0.0
        assert right < start < end < 1000
        right, row = end, number
    areas = [width * height for boxes in figure.boxes for _, _, width, height in boxes]
    assert max(areas) > 500 * 150
    assert {panel.caption.split(",")[0] for row in figure.rows for panel in row} == {
        "axial",
        "coronal",
        "sagittal",
    }


def test_channels_have_a_row_of_their_own_on_one_scale() -> None:
    values = np.zeros((4, 8, 8, 8), np.float32)
    for channel in range(4):
        values[channel, 4, 4, 4] = channel + 1
    image = DisplayVolume(np.random.default_rng(0).uniform(0, 1, (4, 8, 8, 8)), AFFINE)
    names = ("flair", "t1", "t1ce", "t2")
    row = map_figure(Overlay(DisplayVolume(values, AFFINE, channels=names), image)).rows[2]
    assert [panel.caption for panel in row] == list(names)
    reach = [np.ptp(panel.picture, axis=-1).max() for panel in row]
    assert reach[0] < reach[3]


def test_of_many_channels_the_four_strongest_are_shown() -> None:
    values = np.zeros((40, 6, 6, 6), np.float32)
    for channel in (3, 8, 21, 39):
        values[channel, 2, 2, 2] = 1
    row = map_figure(overlay(values)).rows[2]
    names = ["channel 3", "channel 8", "channel 21", "channel 39"]
    assert [panel.caption for panel in row] == names


def test_pictures_keep_rows_and_columns() -> None:
    values = np.zeros((1, 20, 30, 1), np.float32)
    values[0, 4, 25, 0] = 1
    picture = DisplayVolume(np.full((3, 20, 30, 1), 100.0), np.eye(4), "pixel", picture=True)
    figure = map_figure(Overlay(DisplayVolume(values, np.eye(4), "pixel", picture=True), picture))
    (row,) = figure.rows
    assert most_colorful(row[1]) == (4, 25)
    assert most_colorful(row[2]) == (4, 25)
    assert [panel.caption for panel in row] == ["image", "image and map", "map alone"]
    assert [panel.letters for panel in row] == [(), (), ()], "no patient directions"
    assert "patient" not in " ".join(figure.notes).lower()


def test_a_slice_of_a_patient_hangs_like_a_volume() -> None:
    values = np.zeros((1, 12, 14, 1), np.float32)
    values[0, 11, 13, 0] = 1
    figure = map_figure(Overlay(DisplayVolume(values, AFFINE)))
    assert most_colorful(figure.rows[0][1]) == (0, 0)
    assert figure.rows[0][1].letters == ("R", "L", "A", "P")
    assert "Patient's right at the left." in figure.notes


def test_the_left_of_a_sagittal_slice_is_the_front() -> None:
    values = np.zeros((1, 1, 14, 12), np.float32)
    values[0, 0, 13, 11] = 1
    figure = map_figure(Overlay(DisplayVolume(values, AFFINE)))
    assert most_colorful(figure.rows[0][1]) == (0, 0)
    assert figure.rows[0][1].letters == ("A", "P", "S", "I")
    assert "Patient's front at the left." in figure.notes
    volume = map_figure(overlay(np.ones((1, 4, 4, 4), np.float32)))
    assert "Patient's right at the left of axial and coronal planes." in volume.notes


def test_only_signed_scales_have_two_sides() -> None:
    values = np.linspace(0, 2, 64, dtype=np.float32).reshape(1, 4, 4, 4)
    assert "±" in map_figure(overlay(values)).notes[0]
    assert "±" not in map_figure(overlay(values, sign="positive")).notes[0]


def test_empty_maps_and_nan_are_drawn() -> None:
    empty = np.zeros((1, 6, 6, 6), np.float32)
    assert map_figure(overlay(empty)).draw().width == 1000
    empty[0, 1, 1, 1] = np.nan
    mask = np.zeros((6, 6, 6), bool)
    figure = map_figure(overlay(empty, prediction=mask, reference=mask))
    assert figure.rows[0][0].prediction is None
    assert figure.draw().width == 1000


def test_fine_maps_have_more_pixels() -> None:
    fine = np.zeros((1, 200, 4, 4), np.float32)
    assert map_figure(overlay(fine)).draw().width == 1300


def test_outlines_run_where_the_mask_ends_in_two_styles() -> None:
    mask = np.zeros((20, 30), bool)
    mask[5:12, 8:21] = True
    pixels = []
    for dashed in (False, True):
        sheet = Sheet(320, 220)
        sheet.outline((10, 10, 300, 200), mask, "#ffffff", dashed)
        pixels.append(np.asarray(sheet.image)[..., 0] > 60)
    rows, columns = np.nonzero(pixels[0])
    # Ten pixels per cell, from ten pixels on; each side is a line as thin as a pixel or two.
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (59, 130, 89, 220)
    assert 2 * (70 + 130) * 0.8 < pixels[0].sum() < 2 * (70 + 130) * 2.2
    assert not (pixels[1] & ~pixels[0]).any()
    assert 0.3 < pixels[1].sum() / pixels[0].sum() < 0.7


def test_the_crosshair_and_the_letters_leave_the_strongest_voxel_free() -> None:
    values = np.zeros((1, 11, 11, 11), np.float32)
    values[0, 5, 5, 5] = 1
    figure = map_figure(Overlay(DisplayVolume(values, np.eye(4))))
    left, top, width, height = figure.boxes[0][0]
    drawn = np.asarray(figure.draw()).astype(int)
    y, x = round(top + height / 2), round(left + width / 2)
    assert drawn[y, x, 0] > 150
    assert np.ptp(drawn[y, x]) > 60, "the color of the map, not the gray of the lines"
    across = drawn[y, round(left + 30) : round(left + width / 3)]
    assert (across.min(axis=-1) > 90).all(), "the line"
    assert (drawn[y + 4, round(left + 30) : round(left + width / 3)].max(axis=-1) < 60).all()


def test_lines_of_text_get_smaller_and_then_shorter() -> None:
    text = "A title of some length"
    whole = text_width(text, 18)
    assert fitted(text, 18, whole + 1) == (text, 18)
    line, size = fitted(text, 18, 0.8 * whole)
    assert line == text
    assert size < 18
    line, size = fitted(text, 18, 0.3 * whole)
    assert line.endswith("…")
    assert text.startswith(line[:-1])
    assert text_width(line, size) <= 0.3 * whole


def test_png_files_hold_the_pixels_and_no_metadata() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (17, 23, 3), dtype=np.uint8)
    with Pillow.open(io.BytesIO(png(Pillow.fromarray(pixels)))) as picture:
        np.testing.assert_array_equal(np.asarray(picture), pixels)
        assert picture.mode == "RGB"
        assert picture.info == {}


def test_the_key_is_that_of_what_is_seen() -> None:
    values = np.random.default_rng(1).normal(size=(1, 6, 7, 8)).astype(np.float32)
    mask = values[0] > 0
    key = map_figure(overlay(values, prediction=mask)).key
    assert map_figure(overlay(values.copy(), prediction=mask.copy())).key == key
    changed = values.copy()
    changed[np.unravel_index(np.abs(values).argmax(), values.shape)] *= 1.01
    others = [
        overlay(changed, prediction=mask),
        overlay(values, prediction=~mask),
        overlay(values, reference=mask),
        overlay(values, prediction=mask, title="other"),
        overlay(values, prediction=mask, units="mL"),
        overlay(values, prediction=mask, sign="positive"),
        overlay(values, 2 * AFFINE, prediction=mask),
    ]
    assert len({key, *(map_figure(other).key for other in others)}) == 1 + len(others)


def test_color_pictures_are_recognized_by_their_channels() -> None:
    data = np.array([10.0, 20, 250]).reshape(3, 1, 1, 1)
    assert is_color(DisplayVolume(data, np.eye(4), "pixel", ("red", "green", "blue"), True))
    assert not is_color(DisplayVolume(data, np.eye(4), "pixel", ("t1", "t2", "flair"), True))
    assert not is_color(DisplayVolume(data, np.eye(4), "mm", ("red", "green", "blue"), False))
    pixels = rgb(DisplayVolume(data, np.eye(4), "pixel", ("red", "green", "blue"), True))
    np.testing.assert_allclose(pixels[0, 0, 0], np.array([10, 20, 250]) / 255)


def lines_of(drawn: np.ndarray, box: tuple[float, ...]) -> tuple[float, float]:
    """Where the vertical and the horizontal line of the crosshair leave a dark panel."""
    left, top, width, height = box
    brightness = drawn.max(axis=-1).astype(float)
    above = brightness[round(top + 22) : round(top + 34), round(left + 3) : round(left + width - 3)]
    beside = brightness[
        round(top + 3) : round(top + height - 3), round(left + 22) : round(left + 34)
    ]
    return (
        left + 3 + above.mean(axis=0).argmax() + 0.5,
        top + 3 + beside.mean(axis=1).argmax() + 0.5,
    )


def test_the_crosshair_runs_through_the_middle_of_the_strongest_voxel() -> None:
    values = np.zeros((1, 7, 9, 11), np.float32)
    values[0, 2, 5, 7] = 1
    figure = map_figure(Overlay(DisplayVolume(values, np.diag([4.0, 3, 2, 1]))))
    drawn = np.asarray(figure.draw())
    for panel, box in zip(figure.rows[0], figure.boxes[0], strict=True):
        row, column = panel.crosshair or (0, 0)
        rows, columns = panel.background.shape
        left, top, width, height = box
        x, y = lines_of(drawn, box)
        assert x == pytest.approx(left + (column + 0.5) * width / columns, abs=2)
        assert y == pytest.approx(top + (row + 0.5) * height / rows, abs=2)


def test_channels_that_cancel_keep_a_scale_of_their_own_size() -> None:
    channel = np.random.default_rng(0).normal(size=(6, 7, 8)).astype(np.float32)
    opposed = overlay(np.stack([channel, -0.999 * channel]))
    assert opposed.limit == pytest.approx(np.percentile(np.abs(channel), 99.5), rel=1e-5)
    alone = overlay(channel[None])
    assert alone.limit == pytest.approx(opposed.limit)


def test_projections_have_a_scale_of_their_own_and_planes_that_of_the_map() -> None:
    values = np.random.default_rng(0).normal(size=(1, 9, 10, 11)).astype(np.float32)
    shown = overlay(values)
    peaks = [np.abs(values[0]).max(axis=axis) for axis in range(3)]
    largest = max(np.percentile(peak, 99.5) for peak in peaks)
    planes, projections = map_figure(shown).rows
    assert {panel.limit for panel in planes} == {shown.limit}
    assert [panel.limit for panel in projections] == [pytest.approx(largest, rel=1e-5)] * 3
    assert largest > 1.1 * (shown.limit or 0)


@pytest.mark.parametrize("sign", ["signed", "positive", "absolute"])
def test_the_color_bar_has_the_colors_of_the_map(sign: colors.Sign) -> None:
    low = -2.0 if sign == "signed" else 0.0
    values = np.linspace(low, 2.0, 9)
    bar = colors.color_bar(sign, 2.0, count=9)
    np.testing.assert_array_equal(bar, colors.colorize(values, 2.0, sign))
    assert bar[-1, 3] == colors.OPACITY
    assert bar[0, 3] == (colors.OPACITY if sign == "signed" else 0)


def test_pixels_of_a_picture_keep_their_proportions() -> None:
    """Rows of 2 mm, columns of 0.5 mm."""
    affine = np.diag([2.0, 0.5, 1, 1])
    values = np.zeros((1, 20, 30, 1), np.float32)
    shown = Overlay(DisplayVolume(values, affine, picture=True))
    assert {panel.size for row in map_figure(shown).rows for panel in row} == {(15.0, 40.0)}
