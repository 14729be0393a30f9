"""How similar a map stays when the weights of the network are randomized, over all cases."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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

ZERO_BY_CHANCE = {
    "morf_lerf_gap": "removal gap",
    "fidelity": "fidelity",
    "faithfulness_correlation": "correlation with drops of the score",
}
"""Metrics, in words, that are 0 where the order of voxels is unrelated to the score."""

Facts = Mapping[str, Mapping[str, float]]
_METRICS = ("parameter_randomization", "smooth_parameter_randomization")


@dataclass(frozen=True)
class RandomizationSummary:
    """Similarity with the map of the trained network, averaged over cases and seeds.

    Attributes:
        measure: In words.
        last: With the map of a fully randomized network.
        mean: Over the steps of the cascade.
        chance: Between the maps of two random networks; NaN where unknown.
        strengths: Correlation of magnitudes after the last step; NaN where unknown.
        cases: How many.
        patients: How many patients they are of; as many as cases where only cascades are known.
    """

    measure: str
    last: float
    mean: float
    chance: float
    strengths: float
    cases: int
    patients: int


@dataclass(frozen=True)
class ScoreDrop:
    """A score that drops when the network is randomized, averaged over cases and seeds.

    Attributes:
        score: In words.
        trained: Of the maps of the trained network.
        random: Of the maps of fully randomized networks, scored with these networks.
    """

    score: str
    trained: float
    random: float


def randomization_summary(index: ScoreIndex, method: str) -> RandomizationSummary | None:
    """The similarity of a map along cascades through the whole network; None without any.

    The measure is the signed correlation where it is known: the magnitudes of maps may stay
    similar only because the target looks at the same place in any network.
    """
    scored = list(_scores_of_cascades(index, method))
    if scored:
        return _from_scores(max(scored, key=_steps))
    whole = [record for record in index.cascades if record.order != "independent"]
    maps = [
        randomized for record in whole for randomized in record.maps if randomized.method == method
    ]
    return _from_cascades(maps) if maps else None


def stagewise_similarity(index: ScoreIndex, method: str) -> float:
    """Mean similarity where one stage at a time was randomized; NaN where that was not done."""
    maps = [
        randomized
        for record in index.cascades
        for randomized in record.maps
        if (record.order, randomized.method) == ("independent", method)
    ]
    return _from_cascades(maps).mean if maps else math.nan


def score_drop(index: ScoreIndex, method: str) -> ScoreDrop | None:
    """The first score that drops to at most half in every random network, on all cases.

    A score far below zero has not dropped to zero: scores relative to the difference between an
    image and an empty one are arbitrary where a random network hardly tells them apart.
    """
    whole = [record for record in index.cascades if record.order != "independent"]
    for name, words in ZERO_BY_CHANCE.items():
        tables = [
            scores_along(randomized, metric.key)
            for record in whole
            for metric in record.metrics
            for randomized in record.maps
            if (metric.name, randomized.method) == (name, method)
        ]
        if tables and all(table.size and _drops(table) for table in tables):
            trained, random = (
                _average(float(np.mean(table[:, end])) for table in tables) for end in (0, -1)
            )
            return ScoreDrop(words, trained, random)
    return None


def _drops(table: NDArray[Any]) -> bool:
    trained, random = float(table[:, 0].min()), float(np.abs(table[:, -1]).max())
    return trained > 0 and random <= trained / 2  # False for NaN


def _scores_of_cascades(index: ScoreIndex, method: str) -> Iterator[MapScores]:
    """Scores of a map under metrics that randomize the whole network."""
    for metric in index.metrics:
        scores = metric.of(method)
        whole = metric.first.parameters.get("order") != "independent"
        if metric.name in _METRICS and scores is not None and whole:
            yield scores


def _steps(scores: MapScores) -> int:
    """The number of steps of the finest cascade; -1 where no value is defined."""
    return max(len(row.facts.get("stages", ())) for row in scores.rows) if scores.defined else -1


def _from_scores(scores: MapScores) -> RandomizationSummary:
    own = str(scores.rows[0].parameters.get("similarity", STRENGTHS))
    by_row: list[Facts] = [row.facts["measures"] for row in scores.rows if "measures" in row.facts]
    measure = "spearman" if all("spearman" in facts for facts in by_row) else own

    def over_cases(measure: str, name: str) -> float:
        return _average(facts.get(measure, {}).get(name) for facts in by_row)

    return RandomizationSummary(
        MEASURES.get(measure, "similarity"),
        last=over_cases(measure, "last"),
        mean=over_cases(measure, "mean"),
        chance=over_cases(measure, "random_networks"),
        strengths=over_cases(STRENGTHS, "last"),
        cases=len(scores.by_case),
        patients=len(set(scores.patients.values())),
    )


def _from_cascades(maps: list[MapRandomized]) -> RandomizationSummary:
    signed = all(randomized.similarity.get("spearman") for randomized in maps)
    measure = "spearman" if signed else STRENGTHS
    curves = [similarities(randomized, measure) for randomized in maps]
    strengths = [similarities(randomized, STRENGTHS) for randomized in maps]
    return RandomizationSummary(
        MEASURES[measure],
        last=_average(value for curve in curves for value in curve[:, -1].tolist()),
        mean=_average(value for curve in curves for value in curve[:, 1:].ravel().tolist()),
        chance=_average(
            value for randomized in maps for value in randomized.chance.get(measure, [])
        ),
        strengths=_average(value for curve in strengths for value in _last_column(curve)),
        cases=len(maps),
        patients=len(maps),
    )


def _last_column(table: NDArray[Any]) -> list[float]:
    values: list[float] = table[:, -1].tolist() if table.size else []
    return values


def _average(values: Iterable[float | None]) -> float:
    """The mean of the values that are known and finite; NaN without any."""
    finite = [value for value in values if value is not None and math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan
