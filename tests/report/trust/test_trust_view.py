"""The section of the page on trust: verdicts, tables, plots, and what is left out."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from html_page import Page
from synthetic_runs import RunWriter, head_run
from synthetic_scores import (
    METHODS,
    cascade,
    rows,
    score_table,
)

from voxplain.records.scores import Scores
from voxplain.report import render


@pytest.fixture(scope="module")
def scored_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered run with scores of twelve cases and one cascade."""
    folder = head_run(tmp_path_factory.mktemp("scored"))
    score_table().write(folder / "metrics.parquet")
    cascade(folder)
    render(folder)
    return folder


@pytest.fixture(scope="module")
def page(scored_folder: Path) -> Page:
    return Page(scored_folder / "report.html")


def test_a_run_without_scores_has_no_section_on_trust(head_folder: Path) -> None:
    assert "believed" not in (head_folder / "report.html").read_text()


def test_the_page_holds_verdicts_tables_and_controls(page: Page) -> None:
    text = page.text
    assert "Can these maps be believed?" in text
    assert "Fails the randomization check: correlation 0.93 with a random network" in text
    assert "better than every control (AUC 0.91" in text
    assert "Does the map point at the reference?" in text
    for control in ("Random map", "Edge detector", "Brightness", "Middle of the image"):
        assert control in text
    assert text.count("Controls") > 2


def test_status_is_never_color_alone(page: Page) -> None:
    for word in ("holds", "in part", "fails"):
        assert word in page.words
    assert not [attrs for tag, attrs in page.elements if tag == "svg" and not attrs.get("viewbox")]


def test_every_plot_has_an_alternative_text(page: Page) -> None:
    plots = [attrs for attrs in page.all("svg") if attrs.get("aria-hidden") != "true"]
    assert len(plots) > 10
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in plots)


def test_missing_values_have_a_reason_as_tooltip_and_as_note(page: Page) -> None:
    assert "The map is constant." in page.words
    assert "1 of 12 cases: the map is constant." in page.words
    assert any(attrs.get("title") == "The map is constant." for attrs in page.all("td"))


def test_few_cases_have_points_and_no_intervals(tmp_path: Path) -> None:
    RunWriter(tmp_path).finish()
    score_table(3).write(tmp_path / "metrics.parquet")
    render(tmp_path)
    html = (tmp_path / "report.html").read_text()
    page = Page(tmp_path / "report.html")
    assert "3 cases were scored" in page.text
    assert "n = 3" not in page.words  # the page says it once
    assert "n = 2" in page.words  # where a value is missing
    assert 'class="interval"' not in html
    assert html.count("<circle") > 3 * len(METHODS)
    assert "Clear differences" not in page.words


def test_a_shared_page_has_no_pictures_of_cascades(scored_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(scored_folder, folder)
    shutil.rmtree(folder / "figures")
    shared = Page(render(folder, share=True))
    assert not list(folder.glob("figures/randomization*"))
    assert all(not (attrs.get("src") or "").startswith("data:image") for attrs in shared.all("img"))
    assert "Fails the randomization check" in shared.words
    assert "Similarity with the map of the trained network" in shared.words


def test_damaged_files_are_named_and_the_rest_is_shown(tmp_path: Path) -> None:
    RunWriter(tmp_path).finish()
    cascade(tmp_path)
    (tmp_path / "metrics.parquet").write_bytes(b"PAR1 and no more")
    (pictures,) = (tmp_path / "randomization").glob("*.npz")
    pictures.write_bytes(pictures.read_bytes()[:100])
    render(tmp_path)
    text = Page(tmp_path / "report.html").text
    assert "Not shown: the table of scores, because" in text
    assert "Not shown: the pictures of a randomization" in text
    assert "Similarity with the map of the trained network" in text


def test_markup_in_names_is_text(tmp_path: Path) -> None:
    RunWriter(tmp_path).finish()
    Scores(tuple(rows("<b>bold", {"<i>map</i>": [0.1, 0.2]}))).write(tmp_path / "metrics.parquet")
    render(tmp_path)
    assert "<b>bold" not in (tmp_path / "report.html").read_text()
    assert "<i>map" in Page(tmp_path / "report.html").words
