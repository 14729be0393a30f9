"""Scores as tables: methods by metrics, controls below a line, and clear differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

from voxplain.report.trust.randomization_summary import MEASURES
from voxplain.report.trust.score_index import MapScores, MetricScores, ScoreIndex, map_label
from voxplain.statistics import FEWEST, holm
from voxplain.viz.words import decimals, fixed, sentence

WIDEST = 5
"""Metrics in one table; more would not fit on paper."""

LEVEL = 0.05
"""Adjusted p value below which a difference between methods counts as clear."""

FAMILIES = {
    "randomization": "Does the map depend on what the network learned?",
    "faithfulness": "Does the map mark what the score depends on?",
    "localization": "Does the map point at the reference?",
    "robustness": "Does the map stay the same when the image hardly changes?",
    "segmentation": "What happens to the predicted object?",
    "complexity": "How concentrated is the map?",
    "agreement": "Do other methods, seeds and networks show the same?",
    "calibration": "Is the network right as often as it says?",
}
"""Headings of the families, in the order of the page."""

ARROWS = {"up": ("↑", "higher is better"), "down": ("↓", "lower is better"), "none": ("", "")}


@dataclass(frozen=True)
class Head:
    """The head of a column.

    Attributes:
        name: The metric.
        meaning: In one line.
        arrow: Which direction is better, as an arrow.
        better: The same in words.
        unit: Unit and range, in words.
    """

    name: str
    meaning: str
    arrow: str
    better: str
    unit: str


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    Attributes:
        value: The mean over the cases.
        spread: The interval; without one, the number of cases if some are missing.
        mark: The number of the note on missing values; 0 without.
        reason: That note.
        clear: Whether it is clearly better than every other method.
    """

    value: str
    spread: str = ""
    mark: int = 0
    reason: str = ""
    clear: bool = False


@dataclass(frozen=True)
class Row:
    """One map of a table, with a cell per metric."""

    name: str
    control: bool
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """Some metrics of one family.

    Attributes:
        heads: One per metric.
        rows: Methods, then controls.
        notes: Why values are missing, numbered from 1.
        clear: Metrics with their clear differences between methods, in words.
    """

    heads: tuple[Head, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    clear: tuple[tuple[str, str], ...]


def families(index: ScoreIndex) -> list[tuple[str, list[MetricScores]]]:
    """The metrics by family, in the order of the page."""
    by_family: dict[str, list[MetricScores]] = {}
    for metric in index.metrics:
        by_family.setdefault(metric.first.family or "other", []).append(metric)
    order = [*FAMILIES, *(name for name in by_family if name not in FAMILIES)]
    return [(name, by_family[name]) for name in order if name in by_family]


def tables(metrics: Sequence[MetricScores]) -> list[Table]:
    """Tables of the metrics of one family, with at most :data:`WIDEST` columns each."""
    count = -(-len(metrics) // WIDEST)
    cuts = [round(len(metrics) * table / count) for table in range(count + 1)]
    return [_table(metrics[start:stop]) for start, stop in pairwise(cuts)]


def _table(metrics: Sequence[MetricScores]) -> Table:
    notes: list[str] = []
    wins = {id(metric): clear_wins(metric) for metric in metrics}
    listed = (
        scores
        for metric in metrics
        for scores in metric.maps
        if scores.defined or not scores.control
    )
    names = list(dict.fromkeys((scores.control, scores.method) for scores in listed))
    rows = [
        Row(
            map_label(name),
            control,
            tuple(_cell(metric, metric.of(name), notes, wins[id(metric)]) for metric in metrics),
        )
        for control, name in sorted(names, key=lambda pair: pair[0])
    ]
    differences = ((metric.heading, _differences(metric, wins[id(metric)])) for metric in metrics)
    clear = tuple((heading, words) for heading, words in differences if words)
    return Table(tuple(map(_head, metrics)), tuple(rows), tuple(notes), clear)


def _head(metric: MetricScores) -> Head:
    arrow, better = ARROWS.get(metric.first.direction, ("", ""))
    return Head(metric.heading, metric.first.meaning, arrow, better, _unit(metric))


def _unit(metric: MetricScores) -> str:
    first = metric.first
    unit = MEASURES.get(str(first.parameters.get("similarity")), first.unit)
    if first.minimum is not None and first.maximum is not None:
        return f"{unit} {first.minimum:g} to {first.maximum:g}".strip().replace("-", "−")
    return unit


def _cell(
    metric: MetricScores, scores: MapScores | None, notes: list[str], wins: dict[str, set[str]]
) -> Cell:
    if scores is None:
        return Cell("")
    mark, reason = _note(scores, notes)
    if not scores.defined:
        return Cell("–", "", mark, reason)
    others = {other.method for other in metric.methods if other.defined} - {scores.method}
    clear = bool(others) and not scores.control and wins.get(scores.method, set()) >= others
    means = (other.summary.mean for other in metric.maps if other.defined)
    places = decimals(means, digits=2)
    return Cell(fixed(scores.summary.mean, places), _spread(scores, places), mark, reason, clear)


def _spread(scores: MapScores, places: int) -> str:
    interval = scores.summary.interval
    if interval is not None:
        return f"{fixed(interval[0], places)} to {fixed(interval[1], places)}"
    return f"n = {len(scores.defined)}" if scores.summary.undefined > 0 else ""


def _note(scores: MapScores, notes: list[str]) -> tuple[int, str]:
    """The number and text of the note on missing values, added to the notes if it is new."""
    missing = scores.summary.undefined
    if not missing:
        return 0, ""
    share = f"{missing} of {len(scores.by_case)} cases: " if scores.defined else ""
    note = sentence(share + ("; ".join(scores.reasons) or "no reason was given")) + "."
    if note not in notes:
        notes.append(note)
    return notes.index(note) + 1, note


def clear_wins(metric: MetricScores) -> dict[str, set[str]]:
    """By method, the methods that it is clearly better than.

    Clear: the bootstrap interval of the paired differences leaves out 0, and the Wilcoxon p
    value, adjusted over all pairs of the metric (Holm), is below :data:`LEVEL`.
    """
    wins: dict[str, set[str]] = {scores.method: set() for scores in metric.methods}
    if not metric.better or all(scores.summary.patients < FEWEST for scores in metric.methods):
        return wins
    pairs = list(combinations(metric.methods, 2))
    gains = [metric.gain(first, second) for first, second in pairs]
    adjusted = holm([gain.p for gain in gains])
    for (first, second), gain, p in zip(pairs, gains, adjusted, strict=True):
        if gain.is_clear and p < LEVEL:
            better, worse = (first, second) if gain.difference > 0 else (second, first)
            wins[better.method].add(worse.method)
    return wins


def _differences(metric: MetricScores, wins: dict[str, set[str]]) -> str:
    """Which methods are clearly better than which, in words; empty without a comparison."""
    defined = [scores for scores in metric.methods if scores.defined]
    if len(defined) < 2 or not metric.better:
        return ""
    if all(scores.summary.patients < FEWEST for scores in defined):
        return ""
    winners = [scores.method for scores in ranked(defined, metric.better) if wins[scores.method]]
    if not winners:
        return _no_difference(defined)
    return "; ".join(
        f"{map_label(name)} over {', '.join(map_label(other) for other in sorted(wins[name]))}"
        for name in winners
    )


def _no_difference(maps: Sequence[MapScores]) -> str:
    """Why no difference is clear: with few patients and many methods the test can find none."""
    patients, pairs = max(scores.summary.patients for scores in maps), math.comb(len(maps), 2)
    smallest = 2.0 ** (1 - patients) * pairs  # all differences of the same sign, after Holm
    if smallest < LEVEL:
        return "no difference between methods is clear"
    return f"{patients} patients are too few to tell {len(maps)} methods apart"


def ranked(maps: Sequence[MapScores], better: int) -> list[MapScores]:
    """The maps from the best mean to the worst, then those without any value."""
    sign = better or 1

    def rank(scores: MapScores) -> tuple[bool, float]:
        return not scores.defined, -sign * scores.summary.mean if scores.defined else 0.0

    return sorted(maps, key=rank)
