"""Plots of similarities and scores over the steps of a cascade."""

from __future__ import annotations

import math
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from html_page import Page
from synthetic_runs import RunWriter
from synthetic_scores import (
    cascade,
    with_metric,
)

from voxplain.records.cascades import (
    RandomizationRecord,
    write_randomization,
)
from voxplain.report import render
from voxplain.report.trust.cascade_plots import score_panels, similarity_panels
from voxplain.viz.words import fixed


def test_cascade_curves_have_bands_and_chance(tmp_path: Path) -> None:
    plot = similarity_panels(cascade(tmp_path))
    saliency, guided, edges = plot.panels
    assert [kind for kind, _ in saliency.bands] == ["spearman", "spearman_absolute", "ssim", "hog"]
    assert "spearman chance" in [curve.kind for curve in guided.curves]
    assert not any("chance" in curve.kind for curve in edges.curves)
    heights = {point.split(",")[1] for point in edges.curves[0].points.split()}
    assert len(heights) == 1
    assert "correlation 1.00" in edges.alt


def with_two_metrics(folder: Path) -> RandomizationRecord:
    """A cascade with scores of two metrics, one of them not defined for every map."""
    ends = {"saliency": (0.4, 0.0), "guided_backprop": (0.2, 0.1), "edges": (0.1, 0.3)}
    record = with_metric(cascade(folder), ends)
    volume = {"saliency": (8.0, 4.0), "guided_backprop": (math.nan, math.nan)}
    return with_metric(record, volume, "effective_volume", "down", seeds=1, unit="mL")


def test_scores_along_a_cascade_have_a_panel_per_metric(tmp_path: Path) -> None:
    record = with_two_metrics(tmp_path)
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
    plot = score_panels(with_two_metrics(tmp_path))
    assert plot is not None
    gap, volume = plot.panels
    ticks = {text: y for y, text in gap.y_ticks}
    heights = [float(point.split(",")[1]) for point in gap.curves[-1].points.split()]
    assert heights[0] == pytest.approx(ticks["0.4"], abs=0.2)
    assert heights[-1] == pytest.approx(
        ticks["0.4"] + 0.39 / 0.4 * (ticks["0.0"] - ticks["0.4"]), abs=0.2
    )
    assert [text for _, text in volume.y_ticks] == [
        "0",
        "8",
    ]  # with zero
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
        (40.0, {"minimum": -50}, "higher is better, cut at ±1.2"),
        (40.0, {"maximum": 50}, "higher is better, cut at ±1.2"),
    ],
)
def test_unbounded_scores_are_cut_where_they_would_flatten_the_trained_network(
    tmp_path: Path, last: float, bounds: dict[str, float], remark: str
) -> None:
    plot = score_panels(with_metric(cascade(tmp_path), {"saliency": (0.4, last)}, **bounds))
    assert plot is not None
    (panel,) = plot.panels
    assert panel.remark == remark
    levels = [float(text.replace("−", "-")) for _, text in panel.y_ticks]
    cut = "cut" in remark
    assert max(map(abs, levels)) == pytest.approx(1.2 if cut else abs(last), rel=0.1)
    heights = [float(point.split(",")[1]) for point in panel.curves[0].points.split()]
    assert min(heights) >= 8
    assert max(heights) <= 108
    assert f"to {fixed(last + 0.01)}" in panel.alt  # not cut in the text


def test_curves_are_cut_after_seeds_are_averaged(tmp_path: Path) -> None:
    """Two seeds are far outside of the frame, and their mean is inside."""
    record = with_metric(cascade(tmp_path), {"saliency": (0.4, 0.4)}, seeds=2)
    (randomized,) = (randomized for randomized in record.maps if randomized.scores)
    first_seed, second_seed = randomized.scores["morf_lerf_gap"]
    first_seed[3], second_seed[3] = -20.0, 20.8
    plot = score_panels(record)
    assert plot is not None
    (curve,) = plot.panels[0].curves
    first, *_ = heights = [float(point.split(",")[1]) for point in curve.points.split()]
    assert heights[3] == pytest.approx(first, abs=0.2)


def test_more_maps_than_colors_are_told_apart(tmp_path: Path) -> None:
    record = cascade(tmp_path)
    more = [record.maps[0].model_copy(update={"method": f"m{n}"}) for n in range(8)]
    record = record.model_copy(update={"maps": [*more, record.maps[-1]]})
    plot = score_panels(with_metric(record, {f"m{n}": (1.0, 0.0) for n in range(8)}))
    assert plot is not None
    kinds = [kind for kind, _ in plot.legend]
    assert len(set(kinds)) == 8
    assert kinds[6] == "m0 again"
    style = (files("voxplain.report") / "static" / "trust.css").read_text()
    for kind in {kind.split()[0] for kind in kinds}:
        assert f".c-{kind}.c-{kind} {{" in style
        assert f".b-{kind} {{" in style


def test_metrics_of_one_name_are_headed_by_their_parameters(tmp_path: Path) -> None:
    record = cascade(tmp_path)
    for fill in ("blur", "mean"):
        record = with_metric(record, {"saliency": (0.4, 0.0)}, key=f"morf_lerf_gap, fill {fill}")
    plot = score_panels(record)
    assert plot is not None
    assert [panel.heading for panel in plot.panels] == [
        "MoRF-LeRF gap, fill blur",
        "MoRF-LeRF gap, fill mean",
    ]


def test_the_page_shows_scores_below_the_similarities(tmp_path: Path) -> None:
    RunWriter(tmp_path).finish()
    write_randomization(tmp_path, with_two_metrics(tmp_path))
    render(tmp_path)
    text = Page(tmp_path / "report.html").text
    below = text[text.index("Similarity with the map of the trained network") :]
    assert "Scores of the maps, each with the network of its step" in below
    assert "MoRF-LeRF gap higher is better" in below
    assert "its removal gap falls when the network is randomized: 0.40 trained, 0.01 random" in text
