"""How much of a map survives when the network forgets what it learned, from scores or cascades."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from voxplain.records.cascades import MapRandomized, scores_along, similarities
from voxplain.report.trust.score_index import MapScores, ScoreIndex

STRENGTHS = "spearman_absolute"
MEASURES = {
    "spearman": "correlation",
    "spearman_absolute": "correlation of strengths",
    "ssim": "structural similarity",
    "hog": "similarity of edges",
}
"""Similarities in words."""

FALLING = {
    "morf_lerf_gap": "removal gap",
    "fidelity": "fidelity",
    "faithfulness_correlation": "correlation with drops of the score",
}
"""Metrics, in words, that are 0 where the order of voxels says nothing about the score."""

Facts = Mapping[str, Mapping[str, float]]
_METRICS = ("parameter_randomization", "smooth_parameter_randomization")


@dataclass(frozen=True)
class RandomizationSummary:
    """Similarity with the map of the trained network, averaged over cases and seeds.

    Attributes:
        measure: In words.
        last: With a network that is random as a whole.
        mean: Over the steps that lead there.
        chance: Between two random networks; NaN where unknown.
        strengths: The last one of magnitudes; NaN where unknown.
        cases: How many.
        patients: Whose they are, where a table of scores says it.
    """

    measure: str
    last: float
    mean: float
    chance: float
    strengths: float
    cases: int
    patients: int


@dataclass(frozen=True)
class Fall:
    """A score that goes with the training of the network, averaged over cases and seeds.

    Attributes:
        score: In words.
        trained: Of the trained network's maps.
        random: Of the maps of networks that are random as a whole, asked of these networks.
    """

    score: str
    trained: float
    random: float


def randomization_summary(ledger: ScoreIndex, method: str) -> RandomizationSummary | None:
    """What a cascade through the whole network left of a map; None where there was none.

    Signed correlation is read where it is known: where a map is strong, in either direction, may
    follow from where the target looks, in any network.
    """
    scored = list(_cascades(ledger, method))
    if scored:
        return _scored(max(scored, key=_steps))
    kept = [record for record in ledger.cascades if record.order != "independent"]
    maps = [map for record in kept for map in record.maps if map.method == method]
    return _followed(maps) if maps else None


def piecewise(ledger: ScoreIndex, method: str) -> float:
    """Mean similarity where one stage at a time was randomized; NaN where that was not done."""
    maps = [
        map
        for record in ledger.cascades
        for map in record.maps
        if (record.order, map.method) == ("independent", method)
    ]
    return _followed(maps).mean if maps else math.nan


def fall(ledger: ScoreIndex, method: str) -> Fall | None:
    """The first score that falls to less than half its size in every random network, on all cases.

    A score far below zero has not fallen: where a random network hardly tells the image from an
    empty one, scores that are relative to that difference are anything.
    """
    kept = [record for record in ledger.cascades if record.order != "independent"]
    for name, words in FALLING.items():
        tables = [
            scores_along(map, metric.key)
            for record in kept
            for metric in record.metrics
            for map in record.maps
            if (metric.name, map.method) == (name, method)
        ]
        if tables and all(table.size and _falls(table) for table in tables):
            trained, random = (
                _average(float(np.mean(table[:, end])) for table in tables) for end in (0, -1)
            )
            return Fall(words, trained, random)
    return None


def _falls(table: np.ndarray[Any, Any]) -> bool:
    trained, random = float(table[:, 0].min()), float(np.abs(table[:, -1]).max())
    return trained > 0 and random <= trained / 2  # never true of NaN


def _cascades(ledger: ScoreIndex, method: str) -> Iterator[MapScores]:
    """What metrics of cascades through the whole network say of a map."""
    for asked in ledger.asked:
        map = asked.of(method)
        whole = asked.first.parameters.get("order") != "independent"
        if asked.name in _METRICS and map is not None and whole:
            yield map


def _steps(map: MapScores) -> int:
    """How finely it was followed; none where nothing is defined."""
    return max(len(row.facts.get("stages", ())) for row in map.rows) if map.known else -1


def _scored(map: MapScores) -> RandomizationSummary:
    own = str(map.rows[0].parameters.get("similarity", STRENGTHS))
    facts: list[Facts] = [row.facts["measures"] for row in map.rows if "measures" in row.facts]
    measure = "spearman" if all("spearman" in each for each in facts) else own

    def over_cases(measure: str, name: str) -> float:
        return _average(each.get(measure, {}).get(name) for each in facts)

    return RandomizationSummary(
        MEASURES.get(measure, "similarity"),
        last=over_cases(measure, "last"),
        mean=over_cases(measure, "mean"),
        chance=over_cases(measure, "random_networks"),
        strengths=over_cases(STRENGTHS, "last"),
        cases=len(map.by_case),
        patients=len(set(map.patients.values())),
    )


def _followed(maps: list[MapRandomized]) -> RandomizationSummary:
    signed = all(map.similarity.get("spearman") for map in maps)
    measure = "spearman" if signed else STRENGTHS
    curves = [similarities(map, measure) for map in maps]
    strengths = [similarities(map, STRENGTHS) for map in maps]
    return RandomizationSummary(
        MEASURES[measure],
        last=_average(value for curve in curves for value in curve[:, -1].tolist()),
        mean=_average(value for curve in curves for value in curve[:, 1:].ravel().tolist()),
        chance=_average(value for map in maps for value in map.chance.get(measure, [])),
        strengths=_average(value for curve in strengths for value in _last(curve)),
        cases=len(maps),
        patients=len(maps),
    )


def _last(curve: np.ndarray[Any, Any]) -> list[float]:
    found: list[float] = curve[:, -1].tolist() if curve.size else []
    return found


def _average(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan
