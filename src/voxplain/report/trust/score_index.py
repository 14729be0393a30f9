"""The scores of a target of a network, by metric, map and case."""

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
"""The control that is the reference itself: no map is expected to beat it."""

CONTROLS = {
    "random": "Random map",
    "edges": "Edge detector",
    "intensity": "Brightness",
    "center": "Middle of the image",
    "reference": "Reference itself",
}
"""Names of controls on the page."""


@dataclass(frozen=True)
class MapScores:
    """The scores of one map under one metric, over the cases.

    Attributes:
        method: The key of the map, or the name of a control.
        control: Whether it is a control.
        rows: One per case and seed.
    """

    method: str
    control: bool
    rows: tuple[Score, ...]

    @cached_property
    def by_case(self) -> dict[str, float]:
        """The value of each case, NaN where undefined; the mean of its seeds."""
        values: dict[str, list[float]] = {}
        for row in self.rows:
            values.setdefault(row.case, []).append(row.value)
        return {case: sum(of_case) / len(of_case) for case, of_case in values.items()}

    @cached_property
    def patients(self) -> dict[str, str]:
        """The patient of each case."""
        return {row.case: row.whose for row in self.rows}

    @cached_property
    def summary(self) -> Summary:
        """Mean and interval over the cases; those of one patient are resampled together."""
        return summarize(
            list(self.by_case.values()), [self.patients[case] for case in self.by_case]
        )

    @property
    def defined(self) -> list[float]:
        """The values of the cases that have one."""
        return [value for value in self.by_case.values() if math.isfinite(value)]

    @property
    def reasons(self) -> list[str]:
        """Why values are undefined, each reason once."""
        return list(dict.fromkeys(row.reason for row in self.rows if row.reason))


@dataclass(frozen=True)
class MetricScores:
    """The scores of all maps under one metric with its parameters.

    Attributes:
        name: In the registry.
        heading: On the page; with the parameters that differ from those of its namesakes.
        maps: Methods in the order of the run, then controls.
    """

    name: str
    heading: str
    maps: tuple[MapScores, ...]

    @property
    def first(self) -> Score:
        """The first row: direction, unit, family and parameters are those of all rows."""
        return self.maps[0].rows[0]

    @property
    def better(self) -> int:
        """1 where higher is better, -1 where lower is better, 0 where neither is."""
        return {"up": 1, "down": -1}.get(self.first.direction, 0)

    @property
    def methods(self) -> list[MapScores]:
        """The maps of methods."""
        return [scores for scores in self.maps if not scores.control]

    @property
    def controls(self) -> list[MapScores]:
        """The maps of controls, which explain nothing."""
        return [scores for scores in self.maps if scores.control]

    def of(self, method: str) -> MapScores | None:
        """The scores of one map; None where it has none."""
        return next((scores for scores in self.maps if scores.method == method), None)

    def gain(self, first: MapScores, second: MapScores) -> Comparison:
        """How much better the first map is than the second, over the cases that both have.

        A positive difference is better, whatever the direction of the metric.
        """
        cases = [case for case in first.by_case if case in second.by_case]
        sign = self.better or 1
        return compare(
            [sign * first.by_case[case] for case in cases],
            [sign * second.by_case[case] for case in cases],
            patients=[first.patients[case] for case in cases],
        )


@dataclass(frozen=True)
class ScoreIndex:
    """All scores and cascades of one target of one network.

    Attributes:
        model: The network.
        target: What was explained.
        metrics: In the order of the table.
        cases: How many images.
        patients: How many patients they are of.
        cascades: Randomizations of the network, with what became of the maps.
    """

    model: str
    target: str
    metrics: tuple[MetricScores, ...]
    cases: int
    patients: int
    cascades: tuple[RandomizationRecord, ...] = ()

    @property
    def methods(self) -> list[str]:
        """The maps with scores or cascades, without controls and scores of the network itself."""
        scored = [scores.method for metric in self.metrics for scores in metric.methods]
        randomized = [
            randomized.method
            for record in self.cascades
            for randomized in record.maps
            if not randomized.control
        ]
        return list(dict.fromkeys([*filter(None, scored), *randomized]))

    def find(self, *names: str) -> MetricScores | None:
        """The scores of the first of these metrics that there are; None without any."""
        matches = (metric for name in names for metric in self.metrics if metric.name == name)
        return next(matches, None)


def score_indexes(
    scores: Iterable[Score], cascades: Iterable[RandomizationRecord] = ()
) -> list[ScoreIndex]:
    """Scores and cascades by model and target, in the order in which these first occur."""
    rows: dict[tuple[str, str], list[Score]] = {}
    records: dict[tuple[str, str], list[RandomizationRecord]] = {}
    for row in scores:
        rows.setdefault((row.model, row.target), []).append(row)
    for record in cascades:
        records.setdefault((record.model, record.target), []).append(record)
    return [
        _score_index(key, rows.get(key, []), records.get(key, [])) for key in {**rows, **records}
    ]


def map_label(name: str) -> str:
    """The name of a map or control on the page; scores without a map are of the network."""
    return CONTROLS.get(name, title(name)) or "Network"


def _score_index(
    key: tuple[str, str], rows: Sequence[Score], cascades: Sequence[RandomizationRecord]
) -> ScoreIndex:
    patients = {record.case: record.case for record in cascades}
    patients |= {row.case: row.whose for row in rows}
    counts = len(patients), len(set(patients.values()))
    return ScoreIndex(*key, tuple(_by_metric(rows)), *counts, tuple(cascades))


def _by_metric(rows: Sequence[Score]) -> Iterator[MetricScores]:
    groups: dict[tuple[str, str], list[Score]] = {}
    for row in rows:
        settings = json.dumps(row.parameters, sort_keys=True)
        groups.setdefault((row.metric, settings), []).append(row)
    for (name, _), group in groups.items():
        namesakes = [other[0] for (metric, _), other in groups.items() if metric == name]
        yield MetricScores(name, _heading(group[0], namesakes), tuple(_by_map(group)))


def _heading(row: Score, namesakes: Sequence[Score]) -> str:
    differing = [
        f"{key.replace('_', ' ')} {setting(value)}"
        for key, value in row.parameters.items()
        if any(other.parameters.get(key) != value for other in namesakes)
    ]
    return ", ".join([title(row.metric), *differing])


def _by_map(rows: Sequence[Score]) -> list[MapScores]:
    groups: dict[tuple[bool, str], list[Score]] = {}
    for row in rows:
        groups.setdefault((row.control, row.method), []).append(row)
    maps = [MapScores(method, control, tuple(group)) for (control, method), group in groups.items()]
    return sorted(maps, key=lambda scores: scores.control)
