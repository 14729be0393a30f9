"""Scores as tables: methods by metrics, controls below a line, differences that are clear."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

from voxplain.report.trust.cascade_strip import label
from voxplain.report.trust.randomization_summary import MEASURES
from voxplain.report.trust.score_index import MapScores, MetricScores, ScoreIndex
from voxplain.statistics import FEWEST, holm
from voxplain.viz.words import decimals, fixed, sentence

WIDEST = 5
"""Metrics in one table: more would not fit on paper."""

LEVEL = 0.05
"""Adjusted p value below which a difference between methods is called clear."""

FAMILIES = {
    "randomization": "Does the map depend on what the network learned?",
    "faithfulness": "Does the map mark what the score depends on?",
    "localization": "Does the map point at the reference?",
    "robustness": "Does the map stay when the image hardly changes?",
    "segmentation": "What becomes of the predicted object?",
    "complexity": "How concentrated is the map?",
    "agreement": "Do other methods, seeds and networks show the same?",
    "calibration": "Is the network right as often as it says?",
}
"""The chapters, in the order in which they are read."""

ARROWS = {"up": ("↑", "higher is better"), "down": ("↓", "lower is better"), "none": ("", "")}


@dataclass(frozen=True)
class Head:
    """The top of a column.

    Attributes:
        name: The metric.
        meaning: In plain words.
        arrow: Which way is better, as a sign.
        better: The same in words.
        unit: And range, in words.
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
        spread: Its interval; where there is none, how many cases count if not all do.
        mark: The number of the note that says why values are missing; 0 without.
        why: That note.
        clear: Whether it is clearly better than every other method.
    """

    value: str
    spread: str = ""
    mark: int = 0
    why: str = ""
    clear: bool = False


@dataclass(frozen=True)
class Row:
    """One map of a table."""

    name: str
    control: bool
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """Some metrics of one chapter.

    Attributes:
        heads: One per metric.
        rows: Methods, then controls.
        notes: Why values are missing, numbered from 1.
        clear: Per metric, which differences between methods are clear, in words.
    """

    heads: tuple[Head, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    clear: tuple[tuple[str, str], ...]


def families(ledger: ScoreIndex) -> list[tuple[str, list[MetricScores]]]:
    """The metrics by chapter, chapters in the order in which they are read."""
    found: dict[str, list[MetricScores]] = {}
    for asked in ledger.asked:
        found.setdefault(asked.first.family or "other", []).append(asked)
    order = [*FAMILIES, *(name for name in found if name not in FAMILIES)]
    return [(name, found[name]) for name in order if name in found]


def tables(asked: Sequence[MetricScores]) -> list[Table]:
    """The metrics of one chapter, so many side by side as fit."""
    parts = -(-len(asked) // WIDEST)
    cuts = [round(len(asked) * part / parts) for part in range(parts + 1)]
    return [_table(asked[a:b]) for a, b in pairwise(cuts)]


def _table(asked: Sequence[MetricScores]) -> Table:
    notes: list[str] = []
    beaten = {id(part): wins(part) for part in asked}
    shown = (map for part in asked for map in part.maps if map.known or not map.control)
    names = list(dict.fromkeys((map.control, map.method) for map in shown))
    rows = [
        Row(
            label(name),
            control,
            tuple(_cell(part, part.of(name), notes, beaten[id(part)]) for part in asked),
        )
        for control, name in sorted(names, key=lambda pair: pair[0])
    ]
    clear = tuple((part.heading, _differences(part, beaten[id(part)])) for part in asked)
    return Table(
        tuple(map(_head, asked)), tuple(rows), tuple(notes), tuple(c for c in clear if c[1])
    )


def _head(asked: MetricScores) -> Head:
    first = asked.first
    arrow, better = ARROWS.get(first.direction, ("", ""))
    return Head(asked.heading, first.meaning, arrow, better, _unit(asked))


def _unit(asked: MetricScores) -> str:
    first = asked.first
    unit = MEASURES.get(str(first.parameters.get("similarity")), first.unit)
    if first.minimum is not None and first.maximum is not None:
        return f"{unit} {first.minimum:g} to {first.maximum:g}".strip().replace("-", "−")
    return unit


def _cell(
    asked: MetricScores, map: MapScores | None, notes: list[str], beaten: dict[str, set[str]]
) -> Cell:
    if map is None:
        return Cell("")
    mark, why = _note(map, notes)
    if not map.known:
        return Cell("–", "", mark, why)
    others = {part.method for part in asked.methods if part.method != map.method and part.known}
    clear = bool(others) and not map.control and beaten.get(map.method, set()) >= others
    places = decimals((part.summary.mean for part in asked.maps if part.known), digits=2)
    return Cell(fixed(map.summary.mean, places), _spread(map, places), mark, why, clear)


def _spread(map: MapScores, places: int) -> str:
    interval = map.summary.interval
    if interval is not None:
        return f"{fixed(interval[0], places)} to {fixed(interval[1], places)}"
    return f"n = {len(map.known)}" if map.summary.undefined > 0 else ""


def _note(map: MapScores, notes: list[str]) -> tuple[int, str]:
    missing = map.summary.undefined
    if not missing:
        return 0, ""
    share = "" if not map.known else f"{missing} of {len(map.by_case)} cases: "
    why = sentence(share + ("; ".join(map.reasons) or "no reason was given")) + "."
    if why not in notes:
        notes.append(why)
    return notes.index(why) + 1, why


def wins(asked: MetricScores) -> dict[str, set[str]]:
    """By method, which others it is clearly better than.

    Clear: the bootstrap interval of the paired differences leaves out 0, and the Wilcoxon p
    value, adjusted over all pairs of the metric (Holm), is below :data:`LEVEL`.
    """
    found: dict[str, set[str]] = {part.method: set() for part in asked.methods}
    if not asked.better or all(part.summary.patients < FEWEST for part in asked.methods):
        return found
    pairs = list(combinations(asked.methods, 2))
    gains = [asked.gain(one, other) for one, other in pairs]
    adjusted = holm([gain.p for gain in gains])
    for (one, other), gain, p in zip(pairs, gains, adjusted, strict=True):
        if gain.is_clear and p < LEVEL:
            better, worse = (one, other) if gain.difference > 0 else (other, one)
            found[better.method].add(worse.method)
    return found


def _differences(asked: MetricScores, beaten: dict[str, set[str]]) -> str:
    """Who is clearly better than whom, in words; empty where nothing can be compared."""
    known = [part for part in asked.methods if part.known]
    if len(known) < 2 or not asked.better:
        return ""
    if all(part.summary.patients < FEWEST for part in known):
        return ""
    order = [part.method for part in ranked(known, asked.better) if beaten[part.method]]
    if not order:
        return _nothing_clear(known)
    return "; ".join(
        f"{label(name)} over {', '.join(label(other) for other in sorted(beaten[name]))}"
        for name in order
    )


def _nothing_clear(known: Sequence[MapScores]) -> str:
    """With few patients and many methods the test could not have come out otherwise."""
    patients, pairs = max(part.summary.patients for part in known), math.comb(len(known), 2)
    smallest = 2.0 ** (1 - patients) * pairs  # all differences in the same direction, Holm
    if smallest < LEVEL:
        return "no difference between methods is clear"
    return f"{patients} patients are too few to tell {len(known)} methods apart"


def ranked(maps: Sequence[MapScores], better: int) -> list[MapScores]:
    """The best mean first; those without any value last."""
    sign = better or 1
    return sorted(
        maps, key=lambda map: (not map.known, -sign * map.summary.mean if map.known else 0.0)
    )
