"""The figure of a cascade."""

from __future__ import annotations

from pathlib import Path

import pytest
from html_page import Page
from synthetic_runs import RunWriter
from synthetic_scores import (
    cascade,
)

from voxplain.records.cascades import (
    read_pictures,
    read_randomizations,
    write_randomization,
)
from voxplain.report import render
from voxplain.report.trust.cascade_plots import similarity_panels
from voxplain.report.trust.cascade_strip import (
    alternative_text,
    cascade_strip,
    stage_name,
    strip_picture,
)


def test_the_strip_shows_the_first_and_the_last_step(tmp_path: Path) -> None:
    cascade(tmp_path, steps=14)
    (record,) = read_randomizations(tmp_path)
    figure = cascade_strip(record, read_pictures(tmp_path, record))
    headings = [text.get_text() for text in figure.texts]
    assert "trained" in headings
    assert "Guided\nbackpropagation" in headings
    assert "dec13.norm +1" in headings
    assert strip_picture(record, read_pictures(tmp_path, record)).width == 1540
    assert "Edge detector 1.00" in alternative_text(record)


def test_pixels_of_the_strip_have_the_aspect_of_the_record(tmp_path: Path) -> None:
    cascade(tmp_path)
    (record,) = read_randomizations(tmp_path)
    pictures = read_pictures(tmp_path, record)
    for aspect in (1.0, 2.0):
        figure = cascade_strip(record.model_copy(update={"aspect": aspect}), pictures)
        box = next(axes for axes in figure.axes if axes.images).get_window_extent()
        assert box.height / box.width == pytest.approx(40 / 32 * aspect)


def test_randomizing_one_stage_at_a_time_does_not_end_in_a_random_network(tmp_path: Path) -> None:
    RunWriter(tmp_path).finish()
    record = cascade(tmp_path, steps=20)
    pictures = read_pictures(tmp_path, read_randomizations(tmp_path)[0])
    for file in (tmp_path / "randomization").iterdir():
        file.unlink()
    independent = record.model_copy(update={"order": "independent"})
    (panel, *_) = similarity_panels(independent).panels
    assert [text for _, text, _ in panel.x_ticks] == ["trained", "last stage"]
    texts = " ".join(text.get_text() for text in cascade_strip(independent, pictures).texts)
    assert "8 of 20 steps are shown" in texts
    assert "random network" not in texts
    write_randomization(tmp_path, independent, pictures)
    render(tmp_path)
    page = Page(tmp_path / "report.html").text
    assert "The weights of one stage at a time are randomized" in page
    assert "Only one stage at a time was randomized" in page
    assert "independently randomized networks" not in page


def test_texts_of_a_strip_do_not_overlap(tmp_path: Path) -> None:
    """Long names of stages, of the case and of the network, and more steps than columns."""
    cascade(tmp_path, steps=20)
    (record,) = read_randomizations(tmp_path)
    name = "backbone.encoder.denseblock{0}.denselayer{0}.transition_upsample_conv3x3"
    long = [[], *([name.format(n), name.format(n) + "x"] for n in range(20))]
    facts = {
        "stages": long,
        "case": "case_with_a_long_name_0001" * 2,
        "model": "ensemble_member" * 2,
    }
    figure = cascade_strip(record.model_copy(update=facts), read_pictures(tmp_path, record))
    texts = [text for text in figure.texts if text.get_text()]
    boxes = {True: [], False: []}
    for text in texts:
        boxes[bool(text.get_rotation())].append(text.get_window_extent())
    assert max(box.x1 for box in boxes[True] + boxes[False]) <= figure.bbox.x1
    *_, below, title = sorted(boxes[False], key=lambda box: box.y0)
    assert max(box.y1 for box in boxes[True]) < below.y0 < title.y0


@pytest.mark.parametrize(
    ("paths", "name"),
    [
        ([], "trained"),
        (["head"], "head"),
        (["a", "model.encoder.layer1.conv2"], "encoder.layer1.conv2 +1"),
        (["backbone.features.denseblock4.denselayer16"], "denseblock4.denselayer16"),
        (["a", "model.block1.transition_upsample_norm"], "block1.transition_up… +1"),
    ],
)
def test_stages_have_short_names(paths: list[str], name: str) -> None:
    assert stage_name(paths) == name
