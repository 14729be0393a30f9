"""Tables of scores: means, intervals, notes and clear differences."""

from __future__ import annotations

import math

import numpy as np
from synthetic_scores import (
    columns,
    metric_scores,
    rows,
)

from voxplain.report.trust.score_index import MetricScores, score_indexes
from voxplain.report.trust.strip_plots import strip_plot
from voxplain.report.trust.tables import clear_wins, tables


def test_means_intervals_and_arrows_of_a_table() -> None:
    (table,) = tables([metric_scores("roc_auc"), metric_scores("deletion")])
    assert [(head.name, head.arrow, head.better) for head in table.heads] == [
        ("ROC-AUC", "↑", "higher is better"),
        ("Deletion", "↓", "lower is better"),
    ]
    names = [row.name for row in table.rows]
    assert names[:4] == ["Saliency", "Integrated gradients", "Guided backpropagation", "Grad-CAM"]
    assert [row.control for row in table.rows] == [False] * 4 + [True] * 5
    column = metric_scores("roc_auc").maps[1].defined
    cell = table.rows[1].cells[0]
    assert cell.value == f"{np.mean(column):.2f}"
    low, high = (float(end) for end in cell.spread.split(" to "))
    assert low < np.mean(column) < high
    assert table.rows[-1].name == "Reference itself"
    assert table.rows[-1].cells[1].value == ""  # this metric has no score of the ceiling


def test_the_best_is_marked_only_where_it_is_clear() -> None:
    clear = MetricScores("m", "M", tuple(metric_scores("roc_auc").maps))
    (table,) = tables([clear])
    assert [row.cells[0].clear for row in table.rows[:4]] == [False, True, False, False]
    (even,) = tables([metric_scores("morf_lerf_gap")])
    assert not any(row.cells[0].clear for row in even.rows)


def test_differences_between_methods_need_the_interval_and_the_test() -> None:
    same = columns({"a": 0.5, "b": 0.5, "c": 0.9}, 12, 0.02)
    (index,) = score_indexes(rows("roc_auc", same))
    assert clear_wins(index.metrics[0]) == {"a": set(), "b": set(), "c": {"a", "b"}}
    (index,) = score_indexes(rows("deletion", same, direction="down"))
    assert clear_wins(index.metrics[0]) == {"a": {"c"}, "b": {"c"}, "c": set()}
    (index,) = score_indexes(rows("components", same, direction="none"))
    assert clear_wins(index.metrics[0]) == {"a": set(), "b": set(), "c": set()}


def test_many_pairs_need_more_cases() -> None:
    """With 8 cases the smallest p is 1/128: clear for one pair, not for one of fifteen."""
    steps = [0.01 * step for step in range(8)]
    for count, expected in ((2, {"m1"}), (6, set())):
        values = {f"m{n}": [-n - n * step for step in steps] for n in range(count)}
        (index,) = score_indexes(rows("roc_auc", values))
        assert clear_wins(index.metrics[0])["m0"] == expected
    (table,) = tables(index.metrics)
    assert "8 patients are too few to tell 6 methods apart" in table.clear[0]


def test_one_case_that_outweighs_all_others_leaves_nothing_clear() -> None:
    """Nineteen of twenty cases are better, so that p is small, but the mean is worse."""
    values = {"a": [0.1 + 0.001 * n for n in range(19)] + [-9.0], "b": [0.0] * 20}
    (index,) = score_indexes(rows("roc_auc", values))
    (metric,) = index.metrics
    assert metric.gain(*metric.maps).p < 0.05
    assert clear_wins(metric) == {"a": set(), "b": set()}


def test_controls_without_a_defined_score_are_left_out() -> None:
    values = {"saliency": [0.5] * 3, "random": [math.nan] * 3}
    (index,) = score_indexes(rows("parameter_randomization", values))
    (table,) = tables(index.metrics)
    assert [row.name for row in table.rows] == ["Saliency"]
    assert table.notes == ()
    plot = strip_plot(index.metrics[0])
    assert plot is not None
    assert [line.name for line in plot.lines] == ["Saliency"]


def test_metrics_of_one_name_are_headed_by_the_parameters_that_differ() -> None:
    scores = [
        row
        for fill in ("blur", "mean")
        for row in rows("deletion", {"a": [0.1]}, parameters={"fill": fill, "levels": 32})
    ]
    (index,) = score_indexes(scores)
    assert [metric.heading for metric in index.metrics] == [
        "Deletion, fill blur",
        "Deletion, fill mean",
    ]
