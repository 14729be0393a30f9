"""Tables of scores and cascades with known content."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from voxplain.records.cascades import (
    MEASURES,
    MapRandomized,
    MetricFollowed,
    RandomizationRecord,
    write_randomization,
)
from voxplain.records.scores import Score, Scores
from voxplain.report.trust.score_index import MetricScores, score_indexes

CONTROLS = ("random", "edges", "intensity", "center", "reference")
METHODS = ("saliency", "integrated_gradients", "guided_backprop", "grad_cam")


def rows(
    metric: str,
    values: Mapping[str, Sequence[float]],
    *,
    direction: str = "up",
    family: str = "faithfulness",
    curves: bool = False,
    **facts: object,
) -> list[Score]:
    """A score per map and case; a value that is NaN gets a reason."""
    scores = []
    for method, column in values.items():
        for case, value in enumerate(column):
            curve = tuple((x / 8, value * (1 - x / 8)) for x in range(9)) if curves else ()
            scores.append(
                Score(
                    metric,
                    method,
                    value,
                    direction,
                    control=method in CONTROLS,
                    reason="" if math.isfinite(value) else "the map is constant",
                    case=f"p{case:02d}",
                    model="unet",
                    target="1",
                    family=family,
                    meaning="What it says in a line.",
                    curve=curve,
                    **facts,  # type: ignore[arg-type]
                )
            )
    return scores


def values_around(center: float, count: int, seed: int, spread: float = 0.05) -> list[float]:
    """Values of cases around a center: a part common to all seeds, and a part of the seed alone."""
    common = np.random.default_rng(0).normal(size=count) * 0.03
    own = np.random.default_rng(seed).normal(size=count) * spread
    return [float(value) for value in center + common + own]


def columns(
    centers: Mapping[str, float], count: int, spread: float = 0.05
) -> dict[str, list[float]]:
    """Values of the cases of several maps, by map."""
    return {
        name: values_around(center, count, seed + 1, spread)
        for seed, (name, center) in enumerate(centers.items())
    }


def score_table(count: int = 12) -> Scores:
    """Four methods and the controls under metrics of every kind."""
    controls = {"random": 0.02, "edges": 0.12, "intensity": 0.08, "center": 0.05}
    gap = dict(zip(METHODS, (0.15, 0.31, 0.11, 0.28), strict=True))
    localization = dict(zip(METHODS, (0.72, 0.91, 0.74, 0.88), strict=True))
    levels = {"random": 0.5, "edges": 0.74, "intensity": 0.6, "center": 0.7, "reference": 1.0}
    scores = rows("morf_lerf_gap", columns(gap | controls, count), curves=True)
    drops = {name: 0.5 - value for name, value in (gap | controls).items()}
    scores += rows("deletion", columns(drops, count), direction="down", curves=True)
    scores += rows(
        "infidelity", columns({name: 41.0 + 9 * value for name, value in gap.items()}, count),
        direction="down", unit="score squared", minimum=0.0,
    )  # fmt: skip
    facts = {"family": "localization", "minimum": 0.0, "maximum": 1.0}
    scores += rows("roc_auc", columns(localization | levels, count, 0.02), **facts)
    values = columns(localization | levels, count, 0.03)
    values["grad_cam"][2] = math.nan
    values["saliency"] = [math.nan] * count
    scores += rows("max_dice", values, **facts)
    noise = dict(zip(METHODS, (1.2, 0.2, 0.15, 0.6), strict=True))
    scores += rows("max_sensitivity", columns(noise, count), direction="down", family="robustness")
    scores += rows("sparseness", columns(gap | controls, count), family="complexity")
    scores += randomization_scores(dict(zip(METHODS, (0.02, 0.1, 0.93, 0.4), strict=True)), count)
    return Scores(tuple(scores))


def randomization_scores(correlations: Mapping[str, float], count: int) -> list[Score]:
    """Scores of a cascade whose signed correlation is the given one, at the end and on average."""
    scores = []
    for method, value in correlations.items():
        summary = {"mean": value, "last": value, "random_networks": 0.01}
        measures = {measure: dict(summary) for measure in MEASURES}
        measures["spearman_absolute"]["last"] = 0.9
        scores += rows(
            "parameter_randomization",
            {method: [value] * count},
            direction="down",
            family="randomization",
            parameters={"order": "top_down", "similarity": "spearman_absolute"},
            facts={"last": 0.9, "measures": measures},
        )
    return scores


def cascade(run: Path, seeds: int = 3, steps: int = 6) -> RandomizationRecord:
    """A cascade with pictures in a run: saliency changes, guided backpropagation hardly does."""
    generator = np.random.default_rng(0)
    stages = [[], *([f"dec{step}.block.conv", f"dec{step}.norm"] for step in range(steps))]
    image = np.outer(np.hanning(40), np.hanning(32))
    maps, pictures = [], {"image": image}
    for name, end in (("saliency", 0.02), ("guided_backprop", 0.8), ("edges", 1.0)):
        control = name == "edges"
        noise = generator.normal(size=(steps + 1, *image.shape)) * (1 - np.sqrt(end))
        pictures[name] = image * np.sqrt(end) + noise
        curve = 1 - (1 - end) * np.minimum(np.arange(steps + 1), 3) / 3
        curves = [(curve + 0.02 * seed * (not control)).tolist() for seed in range(seeds)]
        maps.append(
            MapRandomized(
                method=name,
                sign="positive" if control else "signed",
                control=control,
                similarity=dict.fromkeys(MEASURES, curves),
                chance={} if control else {"spearman": [0.01, None]},
            )
        )
    record = RandomizationRecord(
        case="p01", model="unet", target="1", order="top_down", stages=stages, maps=maps
    )
    write_randomization(run, record, pictures)
    return record


def with_metric(
    record: RandomizationRecord,
    ends: Mapping[str, tuple[float, float]],
    metric: str = "morf_lerf_gap",
    direction: str = "up",
    seeds: int = 3,
    **facts: object,
) -> RandomizationRecord:
    """The cascade with one more metric, whose scores change in equal steps.

    Args:
        record: Without that metric.
        ends: First and last score by map; other maps are not scored.
        metric: Its name.
        direction: Of the metric.
        seeds: The first is as given, each further one is 0.01 higher after the trained network.
        facts: Key, unit and range of the metric.
    """
    followed = MetricFollowed(
        **({"key": metric, "name": metric, "direction": direction} | facts)  # type: ignore[arg-type]
    )
    maps = []
    for randomized in record.maps:
        line = np.linspace(*ends.get(randomized.method, (0.0, 0.0)), len(record.stages))
        curves = [[line[0], *(line[1:] + 0.01 * seed).tolist()] for seed in range(seeds)]
        scores = {followed.key: curves} if randomized.method in ends else {}
        maps.append(randomized.model_copy(update={"scores": randomized.scores | scores}))
    return record.model_copy(update={"maps": maps, "metrics": [*record.metrics, followed]})


def metric_scores(name: str, count: int = 12) -> MetricScores:
    """The scores of one metric of the table."""
    (index,) = score_indexes(score_table(count))
    metric = index.find(name)
    assert metric is not None
    return metric
