"""Means of scores over right and over wrong predictions, where faithful maps may differ."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from voxplain.report.trust.score_index import MapScores, MetricScores, map_label
from voxplain.viz.words import decimals, fixed


@dataclass(frozen=True)
class ByCorrectness:
    """Means of some metrics over right and over wrong predictions.

    Attributes:
        right: How many cases were predicted rightly.
        wrong: How many cases were predicted wrongly.
        lines: The name of each metric, and both means of every method as text.
    """

    right: int
    wrong: int
    lines: tuple[tuple[str, str], ...]


def by_correctness(metrics: Sequence[MetricScores]) -> ByCorrectness | None:
    """The means of both kinds of predictions; None unless there are both."""
    correctness = {
        row.case: row.correct
        for metric in metrics
        for scores in metric.methods
        for row in scores.rows
        if row.correct is not None
    }
    right = {case for case, correct in correctness.items() if correct}
    wrong = correctness.keys() - right
    if not right or not wrong:
        return None
    lines = ((metric.heading, _line(metric, right, wrong)) for metric in metrics)
    return ByCorrectness(len(right), len(wrong), tuple(lines))


def _line(metric: MetricScores, right: Iterable[str], wrong: Iterable[str]) -> str:
    means = {
        scores.method: (_mean(scores, right), _mean(scores, wrong)) for scores in metric.methods
    }
    places = decimals(value for pair in means.values() for value in pair)
    return "; ".join(
        f"{map_label(method)} {' / '.join(_text(value, places) for value in pair)}"
        for method, pair in means.items()
    )


def _text(value: float, places: int) -> str:
    return fixed(value, places) if math.isfinite(value) else "–"


def _mean(scores: MapScores, cases: Iterable[str]) -> float:
    """Over the given cases with a defined value; NaN without any."""
    values = [scores.by_case[case] for case in cases if case in scores.by_case]
    defined = [value for value in values if math.isfinite(value)]
    return sum(defined) / len(defined) if defined else math.nan
