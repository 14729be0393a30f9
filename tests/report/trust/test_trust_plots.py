"""Strip plots of cases and curves of metrics."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic_scores import (
    metric_scores,
    rows,
)

from voxplain.report.trust.curve_plots import curve_panels
from voxplain.report.trust.score_index import score_indexes
from voxplain.report.trust.strip_plots import strip_plot


def test_the_line_of_the_best_control_leaves_the_reference_out() -> None:
    values = {"a": [0.5], "edges": [0.7], "random": [0.4], "reference": [1.0]}
    (index,) = score_indexes(rows("roc_auc", values))
    plot = strip_plot(index.metrics[0])
    assert plot is not None
    (edges,) = [line for line in plot.lines if line.name == "Edge detector"]
    assert plot.best_control == edges.mean


def test_points_lie_where_their_values_are() -> None:
    (index,) = score_indexes(
        rows("roc_auc", {"a": [0.0, 1.0], "b": [0.25, 0.75], "edges": [0.5, 0.5]})
    )
    plot = strip_plot(index.metrics[0])
    assert plot is not None
    by_name = {line.name: line for line in plot.lines}
    low, high = by_name["A"].points
    quarter = (high - low) / 4
    assert by_name["B"].points == pytest.approx([low + quarter, high - quarter], abs=0.1)
    assert by_name["B"].mean == by_name["A"].mean == plot.best_control
    assert plot.best_control == pytest.approx((low + high) / 2)
    assert [text for _, text, _ in plot.ticks] == ["0.00", "1.00"]
    assert plot.lines[-1].control
    assert plot.divider is not None
    assert plot.lines[-1].y > plot.divider > plot.lines[-2].y


@pytest.mark.parametrize(("direction", "first"), [("up", "B"), ("down", "A")])
def test_the_best_mean_is_on_top(direction: str, first: str) -> None:
    (index,) = score_indexes(rows("m", {"a": [0.1], "b": [0.2]}, direction=direction))
    plot = strip_plot(index.metrics[0])
    assert plot is not None
    assert plot.lines[0].name == first


def test_many_cases_are_drawn_as_quartiles() -> None:
    (index,) = score_indexes(rows("m", {"a": list(np.linspace(0, 1, 101))}))
    plot = strip_plot(index.metrics[0])
    assert plot is not None
    assert plot.lines[0].points == ()
    low, high = plot.lines[0].quartiles or (0, 0)
    ticks = {text: x for x, text, _ in plot.ticks}
    quarter = (ticks["1.00"] - ticks["0.00"]) / 4
    assert (low, high) == pytest.approx((ticks["0.00"] + quarter, ticks["1.00"] - quarter), abs=0.3)


def test_curves_are_means_over_cases_with_controls_behind() -> None:
    plot = curve_panels(metric_scores("deletion", 3))
    assert plot is not None
    assert plot.panels[0].heading == "Saliency"
    kinds = [curve.kind for curve in plot.panels[0].curves]
    assert kinds == ["random", "edges", "intensity", "center", "case", "case", "case", "map"]
    *cases, mean = (curve.points.split() for curve in plot.panels[0].curves[4:])
    height = [np.mean([float(case[at].split(",")[1]) for case in cases]) for at in range(9)]
    assert height == pytest.approx([float(p.split(",")[1]) for p in mean], abs=0.11)
    assert curve_panels(metric_scores("roc_auc")) is None
