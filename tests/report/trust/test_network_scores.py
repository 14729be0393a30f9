"""Scores of the network itself: calibration, on the page and in the terminal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from html_page import Page
from synthetic_runs import RunWriter
from synthetic_scores import rows, score_table

from voxplain.cli.metrics import show_scores
from voxplain.records.scores import Score, Scores
from voxplain.report import render
from voxplain.report.trust.calibration import reliability_diagram
from voxplain.report.trust.plot_frame import Frame
from voxplain.report.trust.score_index import score_indexes
from voxplain.report.trust.strip_plots import strip_plot
from voxplain.report.trust.tables import tables
from voxplain.report.trust.verdict import verdicts


def of_network(count: int = 12) -> list[Score]:
    curve = ((0.2, 0.1), (0.8, 0.6))
    scores = rows("calibration", {"": [0.1 + 0.01 * n for n in range(count)]}, direction="down")
    return [replace(row, family="calibration", curve=curve) for row in scores]


def test_the_network_has_scores_and_no_verdict() -> None:
    (index,) = score_indexes([*score_table(12), *of_network()])
    assert "" not in index.methods
    assert "" not in [verdict.method for verdict in verdicts(index)]
    metric = index.find("calibration")
    assert metric is not None
    (table,) = tables([metric])
    assert [row.name for row in table.rows] == ["Network"]
    assert table.rows[0].cells[0].value == "0.15"
    strip = strip_plot(metric)
    assert strip is not None
    assert [line.name for line in strip.lines] == ["Network"]


def test_the_page_has_a_chapter_about_the_network(tmp_path: Path) -> None:
    RunWriter(tmp_path).finish()
    Scores((*score_table(12).rows, *of_network())).write(tmp_path / "metrics.parquet")
    render(tmp_path)
    text = Page(tmp_path / "report.html").text
    assert "Is the network right as often as it says?" in text
    assert "Calibration: how often the class is present over the predicted probability" in text


def test_a_reliability_diagram_has_the_curve_and_the_diagonal() -> None:
    """A classifier has one curve for all cases; dense outputs one per image, and their means."""
    scores = of_network(3)
    (index,) = score_indexes(scores)
    diagram = reliability_diagram(index.metrics[0])
    assert diagram is not None
    (panel,) = diagram.panels
    diagonal, network = panel.curves
    frame = Frame(0.0, 1.0, 0.0, 1.0)
    assert diagonal.points == frame.line((np.array([0, 1]), np.array([0, 1])))
    assert network.points == frame.line((np.array([0.2, 0.8]), np.array([0.1, 0.6])))
    assert "what it predicts with 80 % is present in 60 %" in panel.alt
    other = replace(scores[0], curve=((0.22, 0.3), (0.5, 0.5)))
    (index,) = score_indexes([other, *scores[1:]])
    several = reliability_diagram(index.metrics[0])
    assert several is not None
    assert [curve.kind for curve in several.panels[0].curves] == ["even", "case", "case", "map"]
    means = np.array([0.2, 0.22, 0.5, 0.8]), np.array([0.1, 0.3, 0.5, 0.6])
    assert several.panels[0].curves[-1].points == frame.line(means)
    (index,) = score_indexes([replace(row, parameters={"bins": 4}) for row in [other, *scores[1:]]])
    coarse = reliability_diagram(index.metrics[0])
    assert coarse is not None
    means = np.array([0.21, 0.5, 0.8]), np.array([0.2, 0.5, 0.6])
    assert coarse.panels[0].curves[-1].points == frame.line(means)
    (index,) = score_indexes([replace(row, curve=()) for row in scores])
    assert reliability_diagram(index.metrics[0]) is None


@pytest.mark.parametrize("calibrated", [True, False])
def test_a_prediction_is_shown_with_its_calibrated_probability(
    calibrated: bool, tmp_path: Path
) -> None:
    run = RunWriter(tmp_path)
    run.model("unet")
    image, labels = np.random.rand(1, 8, 8, 8), np.zeros((8, 8, 8))
    for name in ("a", "b"):
        run.case(name, image, np.eye(4))
        run.prediction(name, "unet", labels, np.eye(4), probability=0.98)
    run.finish()
    facts = {"probability_scaled": 0.812, "temperature": 2.04} if calibrated else {}
    (row,) = of_network(1)
    Scores((replace(row, case="a", facts=facts),)).write(tmp_path / "metrics.parquet")
    render(tmp_path)
    text = Page(tmp_path / "report.html").text
    assert text.count("98 % probability (not calibrated)") == 2
    words = "81 % calibrated (temperature 2.0, from the other patients)"
    assert text.count(words) == calibrated
    assert text.count("calibrated (temperature") == calibrated


def test_the_terminal_has_a_column_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    show_scores(Scores((*rows("roc_auc", {"a": [0.7], "b": [0.8]}), *of_network(1))))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["a", "0.7"] in lines
    assert ["(network)", "0.1"] in lines


def test_the_terminal_has_means_of_each_network(capsys: pytest.CaptureFixture[str]) -> None:
    """And it says of how many scores a reason is."""
    first = [replace(row, model="one") for row in rows("roc_auc", {"a": [0.7, 0.9]})]
    second = [replace(row, model="other") for row in rows("roc_auc", {"a": [0.2]})]
    undefined = replace(first[0], case="late", value=float("nan"), reason="the map is constant")
    show_scores(Scores((*first, undefined, *second)))
    output = capsys.readouterr()
    lines = [line.split() for line in output.out.splitlines()]
    assert ["a", "0.8"] in lines or ["roc_auc", "↑", "0.8"] in lines
    assert ["a", "0.2"] in lines or ["roc_auc", "↑", "0.2"] in lines
    assert "one · target" in output.out
    assert "the map is constant (1 of 3 scores)" in output.err + output.out


def test_the_terminal_has_a_line_per_setting(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain = rows("pointing_game", {"a": [0.0]})
    strict = [replace(row, value=1.0, parameters={"tolerance": 1.5}) for row in plain]
    show_scores(Scores((*plain, *strict)))
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("pointing_game ↑") and line.split()[-1] == "0" for line in lines)
    (strict_line,) = (line for line in lines if "tolerance 1.5" in line)
    assert strict_line.split()[-1] == "1"


def test_targets_of_two_networks_are_in_words_and_areas_are_not_volumes(tmp_path: Path) -> None:
    run = RunWriter(tmp_path)
    image, labels = np.random.rand(1, 8, 8, 8), np.zeros((8, 8, 8))
    run.case("a", image, np.eye(4))
    for name in ("one", "two"):
        run.model(name)
        sizes = {"volumes": {"class 1": 0.2}, "volume_unit": "cm²" if name == "one" else "mL"}
        words = f"the score that {name} gave to 1234 pixels"
        run.prediction("a", name, labels, np.eye(4), words=words, **sizes)
    run.finish()
    scores = [replace(row, model=name) for name in ("one", "two") for row in of_network(1)]
    Scores(tuple(scores)).write(tmp_path / "metrics.parquet")
    render(tmp_path)
    text = Page(tmp_path / "report.html").text
    assert "Model one, target 1 Case a: the score that one gave to 1234 pixels" in text
    assert "Model two, target 1 Case a: the score that two gave to 1234 pixels" in text
    assert "Predicted area by class" in text
    assert "Predicted volume by class" in text
