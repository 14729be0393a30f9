"""Scores where the prediction was right and where it was wrong: faithful maps differ there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from voxplain.report.trust.cascade_strip import label
from voxplain.report.trust.score_index import MapScores, MetricScores
from voxplain.viz.words import decimals, fixed


@dataclass(frozen=True)
class ByCorrectness:
    """Means of some metrics over right and over wrong predictions.

    Attributes:
        right: How many cases were predicted rightly.
        wrong: And how many wrongly.
        lines: Per metric its name, and every method with both means.
    """

    right: int
    wrong: int
    lines: tuple[tuple[str, str], ...]


def by_correctness(asked: Sequence[MetricScores]) -> ByCorrectness | None:
    """The means apart; None unless there are both kinds of predictions."""
    known = {
        row.case: row.correct
        for part in asked
        for map in part.methods
        for row in map.rows
        if row.correct is not None
    }
    right = {case for case, correct in known.items() if correct}
    wrong = known.keys() - right
    if not right or not wrong:
        return None
    lines = ((part.heading, _line(part, right, wrong)) for part in asked)
    return ByCorrectness(len(right), len(wrong), tuple(lines))


def _line(asked: MetricScores, right: Iterable[str], wrong: Iterable[str]) -> str:
    means = {map.method: (_mean(map, right), _mean(map, wrong)) for map in asked.methods}
    places = decimals(value for pair in means.values() for value in pair)
    return "; ".join(
        f"{label(name)} {' / '.join(_shown(value, places) for value in pair)}"
        for name, pair in means.items()
    )


def _shown(value: float, places: int) -> str:
    return fixed(value, places) if math.isfinite(value) else "–"


def _mean(map: MapScores, cases: Iterable[str]) -> float:
    """Over those of the cases where there is a value; NaN where there is none."""
    values = [map.by_case[case] for case in cases if case in map.by_case]
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan
