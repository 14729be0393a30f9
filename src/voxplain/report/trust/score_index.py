"""The scores of one question, looked up by metric, method and case."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from voxplain.records.cascades import RandomizationRecord
from voxplain.records.scores import Score
from voxplain.statistics import Comparison, Summary, compare, summarize
from voxplain.viz.words import setting, title

CEILING = "reference"
"""The control that is the answer itself: nothing is expected to beat it."""


@dataclass(frozen=True)
class MapScores:
    """One map under one metric, over the cases.

    Attributes:
        method: The key of the map, or the name of a control.
        control: Whether it is a control.
        rows: One per case.
    """

    method: str
    control: bool
    rows: tuple[Score, ...]

    @cached_property
    def by_case(self) -> dict[str, float]:
        """The value of every case, NaN where undefined; seeds of a case are averaged."""
        found: dict[str, list[float]] = {}
        for row in self.rows:
            found.setdefault(row.case, []).append(row.value)
        return {case: sum(values) / len(values) for case, values in found.items()}

    @cached_property
    def patients(self) -> dict[str, str]:
        """Whose image every case is."""
        return {row.case: row.whose for row in self.rows}

    @cached_property
    def summary(self) -> Summary:
        """Mean and interval over the cases; those of one patient are resampled together."""
        return summarize(
            list(self.by_case.values()), [self.patients[case] for case in self.by_case]
        )

    @property
    def known(self) -> list[float]:
        """The values that are defined."""
        return [value for value in self.by_case.values() if math.isfinite(value)]

    @property
    def reasons(self) -> list[str]:
        """Why values are undefined, each once."""
        return list(dict.fromkeys(row.reason for row in self.rows if row.reason))


@dataclass(frozen=True)
class MetricScores:
    """One metric with its parameters, and everything it has judged.

    Attributes:
        name: In the registry.
        heading: For people; with the parameters by which it differs from its namesakes.
        maps: Methods in the order of the run, then controls.
    """

    name: str
    heading: str
    maps: tuple[MapScores, ...]

    @property
    def first(self) -> Score:
        """A row that says what all have in common."""
        return self.maps[0].rows[0]

    @property
    def better(self) -> int:
        """1 where higher is better, -1 where lower is, 0 where neither."""
        return {"up": 1, "down": -1}.get(self.first.direction, 0)

    @property
    def methods(self) -> list[MapScores]:
        """The maps that explain."""
        return [part for part in self.maps if not part.control]

    @property
    def controls(self) -> list[MapScores]:
        """The maps that explain nothing."""
        return [part for part in self.maps if part.control]

    def of(self, method: str) -> MapScores | None:
        """What it says of one map."""
        return next((part for part in self.maps if part.method == method), None)

    def gain(self, one: MapScores, other: MapScores) -> Comparison:
        """How much better the first is, on the cases that both have; positive is better."""
        cases = [case for case in one.by_case if case in other.by_case]
        sign = self.better or 1
        return compare(
            [sign * one.by_case[case] for case in cases],
            [sign * other.by_case[case] for case in cases],
            patients=[one.patients[case] for case in cases],
        )


@dataclass(frozen=True)
class ScoreIndex:
    """All scores about one target of one network.

    Attributes:
        model: The network.
        target: What was explained.
        asked: Its metrics, in the order of the table.
        cases: How many images.
        patients: Whose they are.
        cascades: What its maps became while the network was randomized.
    """

    model: str
    target: str
    asked: tuple[MetricScores, ...]
    cases: int
    patients: int
    cascades: tuple[RandomizationRecord, ...] = ()

    @property
    def methods(self) -> list[str]:
        """The maps that were judged, without controls and what is about the network itself."""
        scored = [part.method for asked in self.asked for part in asked.methods if part.method]
        followed = [
            map.method for record in self.cascades for map in record.maps if not map.control
        ]
        return list(dict.fromkeys(scored + followed))

    def find(self, *names: str) -> MetricScores | None:
        """The first of the metrics that was asked for."""
        found = (asked for name in names for asked in self.asked if asked.name == name)
        return next(found, None)


def score_indexes(
    scores: Iterable[Score], cascades: Iterable[RandomizationRecord] = ()
) -> list[ScoreIndex]:
    """The table and the cascades by network and target."""
    rows: dict[tuple[str, str], list[Score]] = {}
    followed: dict[tuple[str, str], list[RandomizationRecord]] = {}
    for row in scores:
        rows.setdefault((row.model, row.target), []).append(row)
    for record in cascades:
        followed.setdefault((record.model, record.target), []).append(record)
    return [_ledger(key, rows.get(key, []), followed.get(key, [])) for key in {**rows, **followed}]


def _ledger(
    key: tuple[str, str], rows: Sequence[Score], cascades: Sequence[RandomizationRecord]
) -> ScoreIndex:
    whose = {record.case: record.case for record in cascades} | {
        row.case: row.whose for row in rows
    }
    counts = len(whose), len(set(whose.values()))
    return ScoreIndex(*key, tuple(_asked(rows)), *counts, tuple(cascades))


def _asked(rows: Sequence[Score]) -> Iterator[MetricScores]:
    found: dict[tuple[str, str], list[Score]] = {}
    for row in rows:
        settings = json.dumps(row.parameters, sort_keys=True)
        found.setdefault((row.metric, settings), []).append(row)
    for (name, _), own in found.items():
        namesakes = [other[0] for (metric, _), other in found.items() if metric == name]
        yield MetricScores(name, _heading(own[0], namesakes), tuple(_maps(own)))


def _heading(row: Score, namesakes: Sequence[Score]) -> str:
    differ = [
        f"{key.replace('_', ' ')} {setting(value)}"
        for key, value in row.parameters.items()
        if any(other.parameters.get(key) != value for other in namesakes)
    ]
    return ", ".join([title(row.metric), *differ])


def _maps(rows: Sequence[Score]) -> list[MapScores]:
    found: dict[tuple[bool, str], list[Score]] = {}
    for row in rows:
        found.setdefault((row.control, row.method), []).append(row)
    maps = [MapScores(method, control, tuple(own)) for (control, method), own in found.items()]
    return sorted(maps, key=lambda part: part.control)
