"""Verdicts on the maps of methods, in sentences with their numbers and numbers of cases."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from voxplain.report.trust.randomization_summary import (
    MEASURES,
    STRENGTHS,
    RandomizationSummary,
    randomization_summary,
    score_drop,
    stagewise_similarity,
)
from voxplain.report.trust.score_index import CEILING, MapScores, MetricScores, ScoreIndex
from voxplain.statistics import FEWEST, Comparison
from voxplain.viz.words import decimals, fixed

Status = Literal["good", "bad", "mixed", "open"]
"""In favor of the map, against it, in between, or not settled."""

SIMILAR = 0.5
"""Similarity with the map of the trained network from which a map fails the randomization check.

It is enough that the similarity after the last step or its mean over the steps is as large: the
map then hardly depends on what the network learned."""

DISSIMILAR = 0.3
"""Similarity up to which a map passes the check, if both of these are as small."""

STEADY, UNSTEADY = 0.3, 1.0
"""Relative change of a map under small noise: steady up to the first, not from the second on."""

ALIKE, UNLIKE = 0.8, 0.5
"""Rank correlation of maps under scanner-like changes: steady from the first on, not below the
second."""

_REMOVAL_METRICS = {
    "morf_lerf_gap": "gap",
    "fidelity": "fidelity",
    "insertion": "insertion",
    "deletion": "deletion",
    "irof": "IROF",
    "faithfulness_correlation": "correlation with drops of the score",
    "infidelity_normalized": "normalized infidelity",
}
_LOCALIZATION_METRICS = {
    "roc_auc": "AUC",
    "roc_auc_of_means": "AUC of mean rates",
    "auprc": "average precision",
    "max_dice": "best Dice",
    "dice_at_common_level": "Dice at a common share",
    "relevance_rank_accuracy": "rank accuracy",
    "relevance_mass_accuracy": "mass accuracy",
    "pointing_game": "hits",
}
_SENSITIVITY_METRICS = ("max_sensitivity", "average_sensitivity")


@dataclass(frozen=True)
class Statement:
    """One sentence about one map.

    Attributes:
        topic: The question that it answers.
        status: What the answer means for the map.
        text: The answer with its number.
    """

    topic: str
    status: Status
    text: str


@dataclass(frozen=True)
class Verdict:
    """The statements about one map.

    Attributes:
        method: The key of the map.
        statements: For every question that was measured.
    """

    method: str
    statements: tuple[Statement, ...]


WEIGHTS = "Does it depend on what the network learned?"
REMOVAL = "Does removing what it marks change the score?"
LOCALIZATION = "Does it point at the reference?"
STEADINESS = "Is it steady under small changes of the image?"
TOPICS = (WEIGHTS, REMOVAL, LOCALIZATION, STEADINESS)


def verdicts(index: ScoreIndex) -> list[Verdict]:
    """The verdicts on the maps of all methods, in the order of the run."""
    return [Verdict(name, tuple(_statements(index, name))) for name in index.methods]


def _statements(index: ScoreIndex, method: str) -> Iterator[Statement]:
    for rule in (_weights, _removal, _localization, _sensitivity, _scanner_changes):
        statement = rule(index, method)
        if statement is not None:
            yield statement


def _weights(index: ScoreIndex, method: str) -> Statement | None:
    """Whether the map changes when the weights of the network are randomized."""
    summary = randomization_summary(index, method)
    if summary is None:
        return _single_stages(index, method)
    if not math.isfinite(summary.mean) or not math.isfinite(summary.last):
        return Statement(WEIGHTS, "open", "the randomization check gave no number")
    facts = _similarities(summary) + _on(summary.cases, summary.patients)
    drop = _score_drop(index, method)
    if max(summary.mean, summary.last) >= SIMILAR:
        return Statement(WEIGHTS, "bad", f"fails the randomization check: {facts}{drop}")
    facts = f"{facts}{_strengths(summary)}{drop}"
    if max(abs(summary.mean), abs(summary.last)) <= DISSIMILAR:
        return Statement(WEIGHTS, "good", f"passes the randomization check: {facts}")
    return Statement(WEIGHTS, "mixed", f"partly passes the randomization check: {facts}")


def _single_stages(index: ScoreIndex, method: str) -> Statement | None:
    """No verdict: randomizing one stage at a time leaves the other stages as trained."""
    similarity = stagewise_similarity(index, method)
    if not math.isfinite(similarity):
        return None
    text = f"only one stage at a time was randomized (correlation {fixed(similarity)} on average)"
    advice = "for a fully randomized network choose the order top_down or bottom_up"
    return Statement(WEIGHTS, "open", f"{text}; {advice}")


def _similarities(summary: RandomizationSummary) -> str:
    """Similarity after the last step and mean over the steps, the decisive one first."""
    random = _of_random_networks(summary.chance)
    if summary.mean > max(summary.last, DISSIMILAR):
        way = f"{summary.measure} {fixed(summary.mean)} on average on the way to a random network"
        return f"{way}, {fixed(summary.last)} with it{random}"
    end = f"{summary.measure} {fixed(summary.last)} with a random network{random}"
    return f"{end}, {fixed(summary.mean)} on average on the way there"


def _of_random_networks(chance: float) -> str:
    return f" (two random networks: {fixed(chance)})" if math.isfinite(chance) else ""


def _strengths(summary: RandomizationSummary) -> str:
    """A remark where the magnitudes stay similar, which may follow from the target alone."""
    if summary.measure != MEASURES["spearman"] or not summary.strengths >= SIMILAR:
        return ""
    similarity = f"{MEASURES[STRENGTHS]} {fixed(summary.strengths)}"
    return f"; where it is strong, for or against, stays the same ({similarity})"


def _score_drop(index: ScoreIndex, method: str) -> str:
    """A remark on a score that drops with randomization; empty without one."""
    drop = score_drop(index, method)
    if drop is None:
        return ""
    places = decimals((drop.trained, drop.random))
    values = f"{fixed(drop.trained, places)} trained, {fixed(drop.random, places)} random"
    return f"; its {drop.score} falls when the network is randomized: {values}"


def _removal(index: ScoreIndex, method: str) -> Statement | None:
    """Whether the order of voxels explains the score better than that of the controls."""
    measured = _scores(index, method, *_REMOVAL_METRICS)
    if measured is None:
        return None
    metric, scores = measured
    claim, measure = "its order of voxels explains the score", _REMOVAL_METRICS[metric.name]
    return _against_controls(REMOVAL, metric, scores, claim, measure)


def _localization(index: ScoreIndex, method: str) -> Statement | None:
    """Whether the map points at the reference better than the controls."""
    measured = _scores(index, method, *_LOCALIZATION_METRICS)
    if measured is None:
        return None
    metric, scores = measured
    claim, measure = "points at the reference", _LOCALIZATION_METRICS[metric.name]
    return _against_controls(LOCALIZATION, metric, scores, claim, measure)


def _against_controls(
    topic: str, metric: MetricScores, scores: MapScores, claim: str, measure: str
) -> Statement | None:
    rivals = [other for other in metric.controls if other.method != CEILING and other.defined]
    if not scores.defined:
        return Statement(topic, "open", f"{measure} is not defined{_reasons(scores)}")
    value = f"{measure} {_mean(scores)}"
    if not rivals:
        return Statement(topic, "open", f"{value}{_cases(scores)}; no control was scored with it")
    best = max(rivals, key=lambda other: metric.better * other.summary.mean)
    gains = {other.method: metric.gain(scores, other) for other in rivals}
    if any(gain.interval is None for gain in gains.values()):
        return _too_few(topic, metric, scores, best, measure)
    equal = [name for name, gain in gains.items() if not _is_win(gain)]
    if not equal:
        facts = f"best control, {_control(best.method)}, {_mean_beside(best, scores)}"
        text = f"{claim} better than every control ({value}; {facts}{_cases(scores)})"
        return Statement(topic, "good", text)
    worst = min(equal, key=lambda name: gains[name].difference)
    rival = next(other for other in rivals if other.method == worst)
    facts = f"{value}, against {_mean_beside(rival, scores)}{_cases(scores)}"
    if "random" in gains and _is_win(gains["random"]):
        text = f"{claim} better than random, but no better than {_control(worst)} ({facts})"
        return Statement(topic, "mixed", text)
    return Statement(topic, "bad", f"{claim} no better than {_control(worst)} ({facts})")


def _too_few(
    topic: str, metric: MetricScores, scores: MapScores, best: MapScores, measure: str
) -> Statement:
    """Means without a claim, as an interval needs more cases."""
    ahead = metric.better * (scores.summary.mean - best.summary.mean) > 0
    rank = "ahead of every control" if ahead else f"not ahead of {_control(best.method)}"
    rival = f"best control, {_control(best.method)}, {_mean_beside(best, scores)}"
    facts = f"{measure} {_mean_beside(scores, best)}; {rival}"
    counted = _counted(len(scores.defined), scores.summary.patients)
    are = "is" if len(scores.defined) == 1 else "are"
    few = f"{counted} {are} too few for an interval, which needs {FEWEST}"
    return Statement(topic, "open", f"{rank} ({facts}); {few}")


def _sensitivity(index: ScoreIndex, method: str) -> Statement | None:
    """How much a little noise changes the map."""
    measured = _scores(index, method, *_SENSITIVITY_METRICS)
    if measured is None or not measured[1].defined:
        return None
    metric, scores = measured
    change = scores.summary.mean
    extent = "at most" if metric.name == "max_sensitivity" else "on average"
    text = f"a little noise changes it by {extent} {fixed(change)} of its size{_cases(scores)}"
    return Statement(STEADINESS, _status(change <= STEADY, change >= UNSTEADY), text)


def _scanner_changes(index: ScoreIndex, method: str) -> Statement | None:
    """How similar the map stays under changes that a scanner makes."""
    measured = _scores(index, method, "medical_stability")
    if measured is None or not measured[1].defined:
        return None
    _, scores = measured
    similarity = scores.summary.mean
    claim = "under scanner-like changes its order keeps a correlation of"
    text = f"{claim} {_mean(scores)}{_cases(scores)}"
    return Statement(STEADINESS, _status(similarity >= ALIKE, similarity < UNLIKE), text)


def _status(good: bool, bad: bool) -> Status:
    return "good" if good else "bad" if bad else "mixed"


def _scores(index: ScoreIndex, method: str, *names: str) -> tuple[MetricScores, MapScores] | None:
    """The first of the metrics that there are, and the scores of the map under it."""
    metric = index.find(*names)
    scores = metric.of(method) if metric else None
    return (metric, scores) if metric and scores else None


def _is_win(gain: Comparison) -> bool:
    return gain.is_clear and gain.difference > 0


def _mean(scores: MapScores) -> str:
    """The mean with its interval, where there is one."""
    interval = scores.summary.interval
    if interval is None:
        return fixed(scores.summary.mean, decimals([scores.summary.mean]))
    low, high = (fixed(value, decimals(interval)) for value in interval)
    return f"{fixed(scores.summary.mean, decimals(interval))}, interval {low} to {high}"


def _mean_beside(scores: MapScores, other: MapScores) -> str:
    """The mean with as many decimals as tell it from another one."""
    means = (scores.summary.mean, other.summary.mean)
    return fixed(means[0], decimals(means))


def _cases(scores: MapScores) -> str:
    return _on(len(scores.defined), scores.summary.patients)


def _on(cases: int, patients: int) -> str:
    """The numbers of cases and patients, as the end of a sentence."""
    counted = _counted(cases, patients)
    return f", on {counted} only" if patients < FEWEST else f", {counted}"


def _counted(cases: int, patients: int) -> str:
    """The number of cases, with that of patients where there are fewer."""
    counted = f"{cases} {'case' if cases == 1 else 'cases'}"
    if patients == cases:
        return counted
    return f"{counted} of {patients} {'patient' if patients == 1 else 'patients'}"


def _reasons(scores: MapScores) -> str:
    return f": {'; '.join(scores.reasons)}" if scores.reasons else ""


def _control(name: str) -> str:
    """A control as part of a sentence."""
    return {
        "random": "a random map",
        "edges": "an edge detector",
        "intensity": "the brightness of the image",
        "center": "a spot in the middle",
    }.get(name, name)
