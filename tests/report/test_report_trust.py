"""The part of the page on trust: what it says, what it draws, and what it leaves out."""

from __future__ import annotations

import math
import re
import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from synthetic_runs import RunWriter, head_run
from synthetic_scores import METHODS, cascade, columns, rows, scored, table
from test_report_page import Page

from voxplain.records.cascades import (
    RandomizationRecord,
    read_pictures,
    read_randomizations,
    write_randomization,
)
from voxplain.records.scores import Scores
from voxplain.report import render
from voxplain.report.trust.cascade_plots import score_panels, similarity_panels
from voxplain.report.trust.cascade_strip import alternative, cascade_strip, stage_name
from voxplain.report.trust.curve_plots import curve_panels
from voxplain.report.trust.score_index import MetricScores, score_indexes
from voxplain.report.trust.strip_plots import strip_plot
from voxplain.report.trust.tables import tables, wins
from voxplain.viz.figures import png
from voxplain.viz.words import decimals, fixed


@pytest.fixture(scope="module")
def judged_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered run with scores of twelve cases and one cascade."""
    folder = head_run(tmp_path_factory.mktemp("judged"))
    table().write(folder / "metrics.parquet")
    cascade(folder)
    render(folder)
    return folder


@pytest.fixture(scope="module")
def page(judged_folder: Path) -> Page:
    return Page(judged_folder / "report.html")


def asked(name: str, count: int = 12) -> MetricScores:
    (ledger,) = score_indexes(table(count))
    found = ledger.find(name)
    assert found is not None
    return found


def test_a_run_without_scores_says_nothing_of_trust(head_folder: Path) -> None:
    assert "believed" not in (head_folder / "report.html").read_text()


def test_the_page_holds_verdicts_tables_and_controls(page: Page) -> None:
    words = re.sub(r"\s+", " ", page.words)
    assert "Can these maps be believed?" in words
    assert "Fails the randomization check: correlation 0.93 with a random network" in words
    assert "better than every control (AUC 0.91" in words
    assert "Does the map point at the reference?" in words
    for control in ("Random map", "Edge detector", "Brightness", "Middle of the image"):
        assert control in words
    assert words.count("Controls") > 2


def test_status_is_never_color_alone(page: Page) -> None:
    for word in ("holds", "in part", "fails"):
        assert word in page.words
    assert not [attrs for tag, attrs in page.elements if tag == "svg" and not attrs.get("viewbox")]


def test_every_drawing_has_words(page: Page) -> None:
    drawings = [attrs for attrs in page.all("svg") if attrs.get("aria-hidden") != "true"]
    assert len(drawings) > 10
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in drawings)


def test_missing_values_say_why_in_print_as_well(page: Page) -> None:
    assert "The map is constant." in page.words
    assert "1 of 12 cases: the map is constant." in page.words
    assert any(attrs.get("title") == "The map is constant." for attrs in page.all("td"))


def test_few_cases_have_points_and_no_intervals(tmp_path: Path) -> None:
    RunWriter(tmp_path).finish()
    table(3).write(tmp_path / "metrics.parquet")
    render(tmp_path)
    text = (tmp_path / "report.html").read_text()
    found = Page(tmp_path / "report.html")
    assert "3 cases were judged" in re.sub(r"\s+", " ", found.words)
    assert "n = 3" not in found.words  # the page says it once
    assert "n = 2" in found.words  # where a value is missing
    assert 'class="interval"' not in text
    assert text.count("<circle") > 3 * len(METHODS)
    assert "Clear differences" not in found.words


def test_sharing_leaves_the_strip_out(judged_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(judged_folder, folder)
    shutil.rmtree(folder / "figures")
    shared = Page(render(folder, share=True))
    assert not list(folder.glob("figures/randomization*"))
    assert all(not (attrs.get("src") or "").startswith("data:image") for attrs in shared.all("img"))
    assert "Fails the randomization check" in shared.words
    assert "Similarity with the map of the trained network" in shared.words


def test_damaged_files_are_said_and_the_rest_goes_on(tmp_path: Path) -> None:
    RunWriter(tmp_path).finish()
    cascade(tmp_path)
    (tmp_path / "metrics.parquet").write_bytes(b"PAR1 and no more")
    (pictures,) = (tmp_path / "randomization").glob("*.npz")
    pictures.write_bytes(pictures.read_bytes()[:100])
    render(tmp_path)
    found = re.sub(r"\s+", " ", Page(tmp_path / "report.html").words)
    assert "Not shown: the table of scores, because" in found
    assert "Not shown: the pictures of a randomization" in found
    assert "Similarity with the map of the trained network" in found


def test_markup_in_names_is_text(tmp_path: Path) -> None:
    RunWriter(tmp_path).finish()
    Scores(tuple(rows("<b>bold", {"<i>map</i>": [0.1, 0.2]}))).write(tmp_path / "metrics.parquet")
    render(tmp_path)
    assert "<b>bold" not in (tmp_path / "report.html").read_text()
    assert "<i>map" in Page(tmp_path / "report.html").words


def test_means_intervals_and_arrows_of_a_table() -> None:
    (found,) = tables([asked("roc_auc"), asked("deletion")])
    assert [(head.name, head.arrow, head.better) for head in found.heads] == [
        ("ROC-AUC", "↑", "higher is better"),
        ("Deletion", "↓", "lower is better"),
    ]
    names = [row.name for row in found.rows]
    assert names[:4] == ["Saliency", "Integrated gradients", "Guided backpropagation", "Grad-CAM"]
    assert [row.control for row in found.rows] == [False] * 4 + [True] * 5
    column = asked("roc_auc").maps[1].known
    cell = found.rows[1].cells[0]
    assert cell.value == f"{np.mean(column):.2f}"
    low, high = (float(part) for part in cell.spread.split(" to "))
    assert low < np.mean(column) < high
    assert found.rows[-1].name == "Reference itself"
    assert found.rows[-1].cells[1].value == ""  # a ceiling that this metric did not judge


def test_the_best_is_marked_only_where_it_is_clear() -> None:
    clear = MetricScores("m", "M", tuple(asked("roc_auc").maps))
    (found,) = tables([clear])
    assert [row.cells[0].clear for row in found.rows[:4]] == [False, True, False, False]
    (even,) = tables([asked("morf_lerf_gap")])
    assert not any(row.cells[0].clear for row in even.rows)


def test_differences_between_methods_need_the_interval_and_the_test() -> None:
    same = columns({"a": 0.5, "b": 0.5, "c": 0.9}, 12, 0.02)
    (ledger,) = score_indexes(rows("roc_auc", same))
    assert wins(ledger.asked[0]) == {"a": set(), "b": set(), "c": {"a", "b"}}
    (ledger,) = score_indexes(rows("deletion", same, direction="down"))
    assert wins(ledger.asked[0]) == {"a": {"c"}, "b": {"c"}, "c": set()}
    (ledger,) = score_indexes(rows("components", same, direction="none"))
    assert wins(ledger.asked[0]) == {"a": set(), "b": set(), "c": set()}


def test_many_pairs_need_more_cases() -> None:
    """With 8 cases the smallest p is 1/128: clear for one pair, not for one of fifteen."""
    steps = [0.01 * step for step in range(8)]
    for count, expected in ((2, {"m1"}), (6, set())):
        values = {f"m{n}": [-n - n * step for step in steps] for n in range(count)}
        (ledger,) = score_indexes(rows("roc_auc", values))
        assert wins(ledger.asked[0])["m0"] == expected
    (found,) = tables(ledger.asked)
    assert "8 patients are too few to tell 6 methods apart" in found.clear[0]


def test_one_case_that_outweighs_all_others_leaves_nothing_clear() -> None:
    """Nineteen of twenty cases are for it, which Wilcoxon sees; the mean is not."""
    values = {"a": [0.1 + 0.001 * n for n in range(19)] + [-9.0], "b": [0.0] * 20}
    (ledger,) = score_indexes(rows("roc_auc", values))
    (asked,) = ledger.asked
    assert asked.gain(*asked.maps).p < 0.05
    assert wins(asked) == {"a": set(), "b": set()}


def test_the_line_of_the_best_control_leaves_the_reference_out() -> None:
    values = {"a": [0.5], "edges": [0.7], "random": [0.4], "reference": [1.0]}
    (ledger,) = score_indexes(rows("roc_auc", values))
    plot = strip_plot(ledger.asked[0])
    assert plot is not None
    (edges,) = [line for line in plot.lines if line.name == "Edge detector"]
    assert plot.best == edges.mean


def test_controls_that_a_metric_cannot_judge_are_left_out() -> None:
    values = {"saliency": [0.5] * 3, "random": [math.nan] * 3}
    (ledger,) = score_indexes(rows("parameter_randomization", values))
    (found,) = tables(ledger.asked)
    assert [row.name for row in found.rows] == ["Saliency"]
    assert found.notes == ()
    plot = strip_plot(ledger.asked[0])
    assert plot is not None
    assert [line.name for line in plot.lines] == ["Saliency"]


def test_namesakes_are_told_apart_by_what_differs() -> None:
    parts = [
        part
        for fill in ("blur", "mean")
        for part in rows("deletion", {"a": [0.1]}, parameters={"fill": fill, "levels": 32})
    ]
    (ledger,) = score_indexes(parts)
    assert [part.heading for part in ledger.asked] == ["Deletion, fill blur", "Deletion, fill mean"]


def test_points_lie_where_their_values_are() -> None:
    (ledger,) = score_indexes(
        rows("roc_auc", {"a": [0.0, 1.0], "b": [0.25, 0.75], "edges": [0.5, 0.5]})
    )
    plot = strip_plot(ledger.asked[0])
    assert plot is not None
    by_name = {line.name: line for line in plot.lines}
    low, high = by_name["A"].points
    quarter = (high - low) / 4
    assert by_name["B"].points == pytest.approx([low + quarter, high - quarter], abs=0.1)
    assert by_name["B"].mean == by_name["A"].mean == plot.best == pytest.approx((low + high) / 2)
    assert [text for _, text, _ in plot.ticks] == ["0.00", "1.00"]
    assert plot.lines[-1].control
    assert plot.rule is not None
    assert plot.lines[-1].y > plot.rule > plot.lines[-2].y


@pytest.mark.parametrize(("direction", "first"), [("up", "B"), ("down", "A")])
def test_the_best_mean_is_on_top(direction: str, first: str) -> None:
    (ledger,) = score_indexes(rows("m", {"a": [0.1], "b": [0.2]}, direction=direction))
    plot = strip_plot(ledger.asked[0])
    assert plot is not None
    assert plot.lines[0].name == first


def test_a_crowd_of_cases_is_drawn_as_quartiles() -> None:
    (ledger,) = score_indexes(rows("m", {"a": list(np.linspace(0, 1, 101))}))
    plot = strip_plot(ledger.asked[0])
    assert plot is not None
    assert plot.lines[0].points == ()
    low, high = plot.lines[0].quartiles or (0, 0)
    ticks = {text: x for x, text, _ in plot.ticks}
    quarter = (ticks["1.00"] - ticks["0.00"]) / 4
    assert (low, high) == pytest.approx((ticks["0.00"] + quarter, ticks["1.00"] - quarter), abs=0.3)


def test_curves_are_means_over_cases_with_controls_behind() -> None:
    plot = curve_panels(asked("deletion", 3))
    assert plot is not None
    assert plot.panels[0].heading == "Saliency"
    kinds = [curve.kind for curve in plot.panels[0].curves]
    assert kinds == ["random", "edges", "intensity", "center", "case", "case", "case", "map"]
    *cases, mean = (curve.points.split() for curve in plot.panels[0].curves[4:])
    height = [np.mean([float(case[at].split(",")[1]) for case in cases]) for at in range(9)]
    assert height == pytest.approx([float(p.split(",")[1]) for p in mean], abs=0.11)
    assert curve_panels(asked("roc_auc")) is None


def test_cascade_curves_have_bands_and_chance(tmp_path: Path) -> None:
    plot = similarity_panels(cascade(tmp_path))
    saliency, guided, edges = plot.panels
    assert [kind for kind, _ in saliency.bands] == ["spearman", "spearman_absolute", "ssim", "hog"]
    assert "spearman chance" in [curve.kind for curve in guided.curves]
    assert not any("chance" in curve.kind for curve in edges.curves)
    heights = {point.split(",")[1] for point in edges.curves[0].points.split()}
    assert len(heights) == 1
    assert "correlation 1.00" in edges.alt


def followed(folder: Path) -> RandomizationRecord:
    """A cascade that two metrics have followed, one of them not on every map."""
    ends = {"saliency": (0.4, 0.0), "guided_backprop": (0.2, 0.1), "edges": (0.1, 0.3)}
    record = scored(cascade(folder), ends)
    volume = {"saliency": (8.0, 4.0), "guided_backprop": (math.nan, math.nan)}
    return scored(record, volume, "effective_volume", "down", seeds=1, unit="mL")


def test_scores_along_a_cascade_have_a_panel_per_metric(tmp_path: Path) -> None:
    record = followed(tmp_path)
    plot = score_panels(record)
    assert plot is not None
    gap, volume = plot.panels
    assert (gap.heading, gap.remark) == ("MoRF-LeRF gap", "higher is better")
    assert (volume.heading, volume.remark) == ("Effective volume", "lower is better, mL")
    assert [curve.kind for curve in gap.curves] == ["edges", "m1", "m0"]
    assert [kind for kind, _ in gap.bands] == ["edges", "m1", "m0"]
    assert [curve.kind for curve in volume.curves] == ["m0"]
    assert volume.bands == ()
    assert plot.legend == (
        ("m0", "Saliency"), ("m1", "Guided backpropagation"), ("edges", "Edge detector"),
    )  # fmt: skip
    assert "Saliency from 0.40 to 0.01; Guided" in gap.alt
    assert volume.alt == "Effective volume, lower is better, mL: Saliency from 8.00 to 4.00."
    assert score_panels(cascade(tmp_path)) is None


def test_points_of_a_score_lie_where_the_values_are(tmp_path: Path) -> None:
    plot = score_panels(followed(tmp_path))
    assert plot is not None
    gap, volume = plot.panels
    ticks = {text: y for y, text in gap.y_ticks}
    heights = [float(point.split(",")[1]) for point in gap.curves[-1].points.split()]
    assert heights[0] == pytest.approx(ticks["0.4"], abs=0.2)
    assert heights[-1] == pytest.approx(
        ticks["0.4"] + 0.39 / 0.4 * (ticks["0.0"] - ticks["0.4"]), abs=0.2
    )
    assert [text for _, text in volume.y_ticks] == ["0", "8"]  # zero is worth its room
    (line,) = volume.curves
    middle = np.mean([float(point.split(",")[1]) for point in line.points.split()])
    assert middle == pytest.approx(
        volume.y_ticks[1][0] + (volume.y_ticks[0][0] - volume.y_ticks[1][0]) / 4, abs=0.2
    )


@pytest.mark.parametrize(
    ("last", "bounds", "remark"),
    [
        (40.0, {}, "higher is better, cut at ±1.2"),
        (-40.0, {}, "higher is better, cut at ±1.2"),
        (2.0, {}, "higher is better"),
        (40.0, {"minimum": -50, "maximum": 50}, "higher is better"),
    ],
)
def test_what_has_no_bounds_leaves_the_trained_network_to_be_seen(
    tmp_path: Path, last: float, bounds: dict[str, float], remark: str
) -> None:
    plot = score_panels(scored(cascade(tmp_path), {"saliency": (0.4, last)}, **bounds))
    assert plot is not None
    (panel,) = plot.panels
    assert panel.remark == remark
    levels = [float(text.replace("−", "-")) for _, text in panel.y_ticks]
    cut = "cut" in remark
    assert max(map(abs, levels)) == pytest.approx(1.2 if cut else abs(last), rel=0.1)
    heights = [float(point.split(",")[1]) for point in panel.curves[0].points.split()]
    assert min(heights) >= 8
    assert max(heights) <= 108
    assert f"to {fixed(last + 0.01)}" in panel.alt  # words cut nothing


def test_curves_are_cut_after_seeds_are_averaged(tmp_path: Path) -> None:
    """Two seeds far apart: their mean is in the frame, and drawn where it is."""
    record = scored(cascade(tmp_path), {"saliency": (0.4, 0.4)}, seeds=2)
    (part,) = (part for part in record.maps if part.scores)
    one, other = part.scores["morf_lerf_gap"]
    one[3], other[3] = -20.0, 20.8
    plot = score_panels(record)
    assert plot is not None
    (curve,) = plot.panels[0].curves
    first, *_ = heights = [float(point.split(",")[1]) for point in curve.points.split()]
    assert heights[3] == pytest.approx(first, abs=0.2)


def test_more_maps_than_colors_are_told_apart(tmp_path: Path) -> None:
    record = cascade(tmp_path)
    more = [record.maps[0].model_copy(update={"method": f"m{n}"}) for n in range(8)]
    record = record.model_copy(update={"maps": [*more, record.maps[-1]]})
    plot = score_panels(scored(record, {f"m{n}": (1.0, 0.0) for n in range(8)}))
    assert plot is not None
    kinds = [kind for kind, _ in plot.legend]
    assert len(set(kinds)) == 8
    assert kinds[6] == "m0 again"
    style = (files("voxplain.report") / "static" / "trust.css").read_text()
    for kind in {kind.split()[0] for kind in kinds}:
        assert f".c-{kind}.c-{kind} {{" in style
        assert f".b-{kind} {{" in style


def test_namesakes_along_a_cascade_show_their_parameters(tmp_path: Path) -> None:
    record = cascade(tmp_path)
    for fill in ("blur", "mean"):
        record = scored(record, {"saliency": (0.4, 0.0)}, key=f"morf_lerf_gap, fill {fill}")
    plot = score_panels(record)
    assert plot is not None
    assert [panel.heading for panel in plot.panels] == [
        "MoRF-LeRF gap, fill blur",
        "MoRF-LeRF gap, fill mean",
    ]


def test_the_page_shows_scores_below_the_similarities(tmp_path: Path) -> None:
    RunWriter(tmp_path).finish()
    write_randomization(tmp_path, followed(tmp_path))
    render(tmp_path)
    found = re.sub(r"\s+", " ", Page(tmp_path / "report.html").words)
    below = found[found.index("Similarity with the map of the trained network") :]
    assert "Scores of the maps, each asked of its own network" in below
    assert "MoRF-LeRF gap higher is better" in below
    assert "its removal gap falls with the network's training: 0.40 trained, 0.01 random" in found


def test_the_strip_shows_the_first_and_the_last_step(tmp_path: Path) -> None:
    cascade(tmp_path, steps=14)
    (record,) = read_randomizations(tmp_path)
    figure = cascade_strip(record, read_pictures(tmp_path, record))
    headings = [text.get_text() for text in figure.texts]
    assert "trained" in headings
    assert "Guided\nbackpropagation" in headings
    assert "dec13.norm +1" in headings
    picture = tmp_path / "strip.png"
    picture.write_bytes(png(figure))
    assert Pillow.open(picture).width == 1540
    assert "Edge detector 1.00" in alternative(record)


def test_pixels_of_the_strip_have_their_true_shape(tmp_path: Path) -> None:
    cascade(tmp_path)
    (record,) = read_randomizations(tmp_path)
    pictures = read_pictures(tmp_path, record)
    for aspect in (1.0, 2.0):
        figure = cascade_strip(record.model_copy(update={"aspect": aspect}), pictures)
        box = next(axes for axes in figure.axes if axes.images).get_window_extent()
        assert box.height / box.width == pytest.approx(40 / 32 * aspect)


def test_one_stage_at_a_time_does_not_end_in_a_random_network(tmp_path: Path) -> None:
    RunWriter(tmp_path).finish()
    record = cascade(tmp_path, steps=20)
    pictures = read_pictures(tmp_path, read_randomizations(tmp_path)[0])
    for file in (tmp_path / "randomization").iterdir():
        file.unlink()
    alone = record.model_copy(update={"order": "independent"})
    (panel, *_) = similarity_panels(alone).panels
    assert [text for _, text, _ in panel.x_ticks] == ["trained", "last stage"]
    drawn = " ".join(text.get_text() for text in cascade_strip(alone, pictures).texts)
    assert "8 of 20 steps are shown" in drawn
    assert "random network" not in drawn
    write_randomization(tmp_path, alone, pictures)
    render(tmp_path)
    words = re.sub(r"\s+", " ", Page(tmp_path / "report.html").words)
    assert "One stage at a time forgets what it learned" in words
    assert "Only one stage at a time was randomized" in words
    assert "independently randomized networks" not in words


def test_nothing_of_a_strip_lies_upon_other_words(tmp_path: Path) -> None:
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
def test_stages_are_named_shortly(paths: list[str], name: str) -> None:
    assert stage_name(paths) == name


@pytest.mark.parametrize(
    ("value", "places", "text"),
    [
        (0.0001, 2, "0.00"),
        (-0.001, 2, "0.00"),
        (-0.126, 2, "−0.13"),
        (1234.5, 2, "1,234"),
        (2.5e7, 2, "2.5 × 10⁷"),
        (float("nan"), 2, "not a number"),
    ],
)
def test_fixed_decimals(value: float, places: int, text: str) -> None:
    assert fixed(value, places) == text


@pytest.mark.parametrize(
    ("values", "places"),
    [([0.1, 0.9], 2), ([0.101, 0.104], 3), ([41, 43], 2), ([], 2), ([0.0, 0.0], 2)],
)
def test_decimals_show_how_far_values_lie_apart(values: list[float], places: int) -> None:
    assert decimals(values) == places
