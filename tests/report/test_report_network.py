"""Scores about the network itself: one row, no map, no verdict."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic_runs import RunWriter
from synthetic_scores import rows, table
from test_report_page import Page

from voxplain.cli.metrics import show_scores
from voxplain.records.scores import Score, Scores
from voxplain.report import render
from voxplain.report.trust.plot_frame import Frame
from voxplain.report.trust.reliability import reliability
from voxplain.report.trust.score_index import score_indexes
from voxplain.report.trust.strip_plots import strip_plot
from voxplain.report.trust.tables import tables
from voxplain.report.trust.verdict import verdicts


def of_network(count: int = 12) -> list[Score]:
    curve = ((0.2, 0.1), (0.8, 0.6))
    found = rows("calibration", {"": [0.1 + 0.01 * n for n in range(count)]}, direction="down")
    return [replace(row, family="calibration", curve=curve) for row in found]


def test_the_network_is_no_map_among_maps() -> None:
    (ledger,) = score_indexes([*table(12), *of_network()])
    assert "" not in ledger.methods
    assert "" not in [verdict.method for verdict in verdicts(ledger)]
    asked = ledger.find("calibration")
    assert asked is not None
    (shown,) = tables([asked])
    assert [row.name for row in shown.rows] == ["Network"]
    assert shown.rows[0].cells[0].value == "0.15"
    drawn = strip_plot(asked)
    assert drawn is not None
    assert [line.name for line in drawn.lines] == ["Network"]


def test_the_page_has_a_chapter_about_the_network(tmp_path: Path) -> None:
    RunWriter(tmp_path).finish()
    Scores((*table(12).rows, *of_network())).write(tmp_path / "metrics.parquet")
    render(tmp_path)
    words = re.sub(r"\s+", " ", Page(tmp_path / "report.html").words)
    assert "Is the network right as often as it says?" in words
    assert "Calibration: how often the class is there over the probability that was said" in words


def test_the_curve_lies_beside_what_would_be_right() -> None:
    """Of a classifier one curve for all cases; of dense outputs one per image, and their means."""
    found = of_network(3)
    (ledger,) = score_indexes(found)
    drawn = reliability(ledger.asked[0])
    assert drawn is not None
    (panel,) = drawn.panels
    even, network = panel.curves
    frame = Frame(0.0, 1.0, 0.0, 1.0)
    assert even.points == frame.line((np.array([0, 1]), np.array([0, 1])))
    assert network.points == frame.line((np.array([0.2, 0.8]), np.array([0.1, 0.6])))
    assert "what it says with 80 % is there in 60 %" in panel.alt
    other = replace(found[0], curve=((0.22, 0.3), (0.5, 0.5)))
    (ledger,) = score_indexes([other, *found[1:]])
    apart = reliability(ledger.asked[0])
    assert apart is not None
    assert [curve.kind for curve in apart.panels[0].curves] == ["even", "case", "case", "map"]
    means = np.array([0.2, 0.22, 0.5, 0.8]), np.array([0.1, 0.3, 0.5, 0.6])
    assert apart.panels[0].curves[-1].points == frame.line(means)
    (ledger,) = score_indexes([replace(row, parameters={"bins": 4}) for row in [other, *found[1:]]])
    coarse = reliability(ledger.asked[0])
    assert coarse is not None
    means = np.array([0.21, 0.5, 0.8]), np.array([0.2, 0.5, 0.6])
    assert coarse.panels[0].curves[-1].points == frame.line(means)
    (ledger,) = score_indexes([replace(row, curve=()) for row in found])
    assert reliability(ledger.asked[0]) is None


@pytest.mark.parametrize("known", [True, False])
def test_a_prediction_is_shown_with_its_calibrated_probability(known: bool, tmp_path: Path) -> None:
    run = RunWriter(tmp_path)
    run.model("unet")
    image, labels = np.random.rand(1, 8, 8, 8), np.zeros((8, 8, 8))
    for name in ("a", "b"):
        run.case(name, image, np.eye(4))
        run.prediction(name, "unet", labels, np.eye(4), probability=0.98)
    run.finish()
    facts = {"probability_scaled": 0.812, "temperature": 2.04} if known else {}
    (row,) = of_network(1)
    Scores((replace(row, case="a", facts=facts),)).write(tmp_path / "metrics.parquet")
    render(tmp_path)
    words = re.sub(r"\s+", " ", Page(tmp_path / "report.html").words)
    assert words.count("98 % probability (not calibrated)") == 2
    shown = "81 % calibrated (temperature 2.0, from the other patients)"
    assert words.count(shown) == known
    assert words.count("calibrated (temperature") == known


def test_the_terminal_has_a_column_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    show_scores(Scores((*rows("roc_auc", {"a": [0.7], "b": [0.8]}), *of_network(1))))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["a", "0.7"] in lines
    assert ["(network)", "0.1"] in lines


def test_the_terminal_means_no_networks_together(capsys: pytest.CaptureFixture[str]) -> None:
    """Nor does it say of all scores why one is missing."""
    one = [replace(row, model="one") for row in rows("roc_auc", {"a": [0.7, 0.9]})]
    other = [replace(row, model="other") for row in rows("roc_auc", {"a": [0.2]})]
    gone = replace(one[0], case="late", value=float("nan"), reason="the map is constant")
    show_scores(Scores((*one, gone, *other)))
    told = capsys.readouterr()
    lines = [line.split() for line in told.out.splitlines()]
    assert ["a", "0.8"] in lines or ["roc_auc", "↑", "0.8"] in lines
    assert ["a", "0.2"] in lines or ["roc_auc", "↑", "0.2"] in lines
    assert "one · target" in told.out
    assert "the map is constant (1 of 3 scores)" in told.err + told.out


def test_the_terminal_tells_two_ways_of_asking_apart(capsys: pytest.CaptureFixture[str]) -> None:
    plain = rows("pointing_game", {"a": [0.0]})
    strict = [replace(row, value=1.0, parameters={"tolerance": 1.5}) for row in plain]
    show_scores(Scores((*plain, *strict)))
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("pointing_game ↑") and line.split()[-1] == "0" for line in lines)
    (strict_line,) = (line for line in lines if "tolerance 1.5" in line)
    assert strict_line.split()[-1] == "1"


def test_targets_of_two_are_said_in_words_and_areas_are_no_volumes(tmp_path: Path) -> None:
    run = RunWriter(tmp_path)
    image, labels = np.random.rand(1, 8, 8, 8), np.zeros((8, 8, 8))
    run.case("a", image, np.eye(4))
    for name in ("one", "two"):
        run.model(name)
        sizes = {"volumes": {"class 1": 0.2}, "volume_unit": "cm²" if name == "one" else "mL"}
        words = f"the score that {name} gave to 1234 pixels"
        run.prediction("a", name, labels, np.eye(4), words=words, **sizes)
    run.finish()
    found = [replace(row, model=name) for name in ("one", "two") for row in of_network(1)]
    Scores(tuple(found)).write(tmp_path / "metrics.parquet")
    render(tmp_path)
    words = re.sub(r"\s+", " ", Page(tmp_path / "report.html").words)
    assert "Model one, target 1 Case a: the score that one gave to 1234 pixels" in words
    assert "Model two, target 1 Case a: the score that two gave to 1234 pixels" in words
    assert "Predicted area by class" in words
    assert "Predicted volume by class" in words
