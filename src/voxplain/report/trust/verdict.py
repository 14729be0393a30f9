"""What the scores say of each map, in plain sentences: every one with its number and its cases."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from voxplain.report.trust.randomization_summary import (
    MEASURES,
    STRENGTHS,
    RandomizationSummary,
    fall,
    piecewise,
    randomization_summary,
)
from voxplain.report.trust.score_index import CEILING, MapScores, MetricScores, ScoreIndex
from voxplain.statistics import FEWEST, Comparison
from voxplain.viz.words import decimals, fixed

Status = Literal["good", "bad", "mixed", "open"]
"""Speaks for the map, against it, for neither, or was not settled."""

SURVIVES = 0.5
"""A similarity with the trained network's map from here on, at the end of a cascade or on average
on the way there, means: the map hardly asks the network."""

FORGOTTEN = 0.3
"""A similarity up to here, at both, means: what was learned is what is shown."""

STEADY, UNSTEADY = 0.3, 1.0
"""Relative change of a map under small noise: up to the first steady, from the second on not."""

ALIKE, UNLIKE = 0.8, 0.5
"""Rank correlation of maps under scanner-like changes: from the first on steady, below the second
not."""

_REMOVAL = {
    "morf_lerf_gap": "gap",
    "fidelity": "fidelity",
    "insertion": "insertion",
    "deletion": "deletion",
    "irof": "IROF",
    "faithfulness_correlation": "correlation with drops of the score",
    "infidelity_normalized": "normalized infidelity",
}
_PLACES = {
    "roc_auc": "AUC",
    "auprc": "average precision",
    "max_dice": "best Dice",
    "relevance_rank_accuracy": "rank accuracy",
    "relevance_mass_accuracy": "mass accuracy",
    "pointing_game": "hits",
}
_NEIGHBORS = ("max_sensitivity", "average_sensitivity")


@dataclass(frozen=True)
class Statement:
    """One sentence about one map.

    Attributes:
        topic: The question that it answers.
        status: What the answer means for the map.
        text: The answer, with its number.
    """

    topic: str
    status: Status
    text: str


@dataclass(frozen=True)
class Verdict:
    """All that can be said of one map.

    Attributes:
        method: Its key.
        statements: One per question that was measured.
    """

    method: str
    statements: tuple[Statement, ...]


WEIGHTS = "Does it depend on what the network learned?"
REMOVAL = "Does removing what it marks change the score?"
PLACE = "Does it point at the reference?"
STEADINESS = "Is it steady under small changes of the image?"
TOPICS = (WEIGHTS, REMOVAL, PLACE, STEADINESS)


def verdicts(ledger: ScoreIndex) -> list[Verdict]:
    """The verdict on every map that explains, in the order of the run."""
    return [Verdict(name, tuple(_statements(ledger, name))) for name in ledger.methods]


def _statements(ledger: ScoreIndex, method: str) -> Iterator[Statement]:
    rules = (_weights, _removal, _place, _steadiness, _scanner)
    for rule in rules:
        found = rule(ledger, method)
        if found is not None:
            yield found


def _weights(ledger: ScoreIndex, method: str) -> Statement | None:
    """Whether the map is another one once the network has forgotten what it learned."""
    found = randomization_summary(ledger, method)
    if found is None:
        return _piecewise(ledger, method)
    if not math.isfinite(found.mean) or not math.isfinite(found.last):
        return Statement(WEIGHTS, "open", "the randomization check gave no number")
    facts = _similarities(found) + _on(found.cases, found.patients)
    scores = _falling(ledger, method)
    if max(found.mean, found.last) >= SURVIVES:
        return Statement(WEIGHTS, "bad", f"fails the randomization check: {facts}{scores}")
    if max(abs(found.mean), abs(found.last)) <= FORGOTTEN:
        text = f"passes the randomization check: {facts}{_strengths(found)}{scores}"
        return Statement(WEIGHTS, "good", text)
    text = f"partly survives the randomization check: {facts}{_strengths(found)}{scores}"
    return Statement(WEIGHTS, "mixed", text)


def _piecewise(ledger: ScoreIndex, method: str) -> Statement | None:
    """One stage at a time leaves the rest as it was learned, which settles nothing."""
    kept = piecewise(ledger, method)
    if not math.isfinite(kept):
        return None
    text = f"only one stage at a time was randomized (correlation {fixed(kept)} on average)"
    help = "a network that is random as a whole needs the order top_down or bottom_up"
    return Statement(WEIGHTS, "open", f"{text}; {help}")


def _similarities(found: RandomizationSummary) -> str:
    """Both numbers, the one that weighs more first."""
    random = _of_random(found.chance)
    if found.mean > max(found.last, FORGOTTEN):
        way = f"{found.measure} {fixed(found.mean)} on average on the way to a random network"
        return f"{way}, {fixed(found.last)} with it{random}"
    end = f"{found.measure} {fixed(found.last)} with a random network{random}"
    return f"{end}, {fixed(found.mean)} on average on the way there"


def _of_random(chance: float) -> str:
    return f" (two random networks: {fixed(chance)})" if math.isfinite(chance) else ""


def _strengths(found: RandomizationSummary) -> str:
    """Where a map is strong may follow from where the target looks, in any network."""
    if found.measure != MEASURES["spearman"] or not found.strengths >= SURVIVES:
        return ""
    kept = f"{MEASURES[STRENGTHS]} {fixed(found.strengths)}"
    return f"; where it is strong, for or against, stays ({kept})"


def _falling(ledger: ScoreIndex, method: str) -> str:
    """What else goes with the training; nothing where it does not."""
    found = fall(ledger, method)
    if found is None:
        return ""
    places = decimals((found.trained, found.random))
    values = f"{fixed(found.trained, places)} trained, {fixed(found.random, places)} random"
    return f"; its {found.score} falls with the network's training: {values}"


def _removal(ledger: ScoreIndex, method: str) -> Statement | None:
    """Whether its order of voxels explains the score better than that of the controls."""
    found = _judged(ledger, method, *_REMOVAL)
    if found is None:
        return None
    asked, map = found
    words = ("its order of voxels explains the score", _REMOVAL[asked.name])
    return _against_controls(REMOVAL, asked, map, *words)


def _place(ledger: ScoreIndex, method: str) -> Statement | None:
    """Whether it finds the reference better than the controls."""
    found = _judged(ledger, method, *_PLACES)
    if found is None:
        return None
    asked, map = found
    return _against_controls(PLACE, asked, map, "points at the reference", _PLACES[asked.name])


def _against_controls(
    topic: str, asked: MetricScores, map: MapScores, claim: str, measure: str
) -> Statement | None:
    rivals = [part for part in asked.controls if part.method != CEILING and part.known]
    if not map.known:
        return Statement(topic, "open", f"{measure} is not defined{_why(map)}")
    value = f"{measure} {_mean(map)}"
    if not rivals:
        return Statement(topic, "open", f"{value}{_cases(map)}; no control was judged beside it")
    best = max(rivals, key=lambda part: asked.better * part.summary.mean)
    gains = {part.method: asked.gain(map, part) for part in rivals}
    if any(gain.interval is None for gain in gains.values()):
        return _few(topic, asked, map, best, measure)
    equal = [name for name, gain in gains.items() if not _wins(gain)]
    beaten = f"{value}; best control, {_named(best.method)}, {_mean_of(best, map)}"
    if not equal:
        return Statement(
            topic, "good", f"{claim} better than every control ({beaten}{_cases(map)})"
        )
    worst = min(equal, key=lambda name: gains[name].difference)
    rival = next(part for part in rivals if part.method == worst)
    facts = f"{value}, against {_mean_of(rival, map)}{_cases(map)}"
    if "random" in gains and _wins(gains["random"]):
        text = f"{claim} better than random, but no better than {_named(worst)} ({facts})"
        return Statement(topic, "mixed", text)
    return Statement(topic, "bad", f"{claim} no better than {_named(worst)} ({facts})")


def _few(
    topic: str, asked: MetricScores, map: MapScores, best: MapScores, measure: str
) -> Statement:
    """Points and no claim: an interval needs more cases."""
    ahead = asked.better * (map.summary.mean - best.summary.mean) > 0
    how = "ahead of every control" if ahead else f"not ahead of {_named(best.method)}"
    rival = f"best control, {_named(best.method)}, {_mean_of(best, map)}"
    facts = f"{measure} {_mean_of(map, best)}; {rival}"
    return Statement(topic, "open", f"{how} ({facts}); {_too_few(map)}")


def _too_few(map: MapScores) -> str:
    who = _counted(len(map.known), map.summary.patients)
    are = "is" if len(map.known) == 1 else "are"
    return f"{who} {are} too few for an interval, which needs {FEWEST}"


def _steadiness(ledger: ScoreIndex, method: str) -> Statement | None:
    """How much the map changes with a little noise."""
    found = _judged(ledger, method, *_NEIGHBORS)
    if found is None or not found[1].known:
        return None
    asked, map = found
    value = map.summary.mean
    how = "at most" if asked.name == "max_sensitivity" else "on average"
    text = f"a little noise changes it by {how} {fixed(value)} of its size{_cases(map)}"
    return Statement(STEADINESS, _graded(value <= STEADY, value >= UNSTEADY), text)


def _scanner(ledger: ScoreIndex, method: str) -> Statement | None:
    """How alike the maps of the same patient are under changes that a scanner makes."""
    found = _judged(ledger, method, "medical_stability")
    if found is None or not found[1].known:
        return None
    map = found[1]
    value = map.summary.mean
    text = f"under scanner-like changes its order keeps a correlation of {_mean(map)}{_cases(map)}"
    return Statement(STEADINESS, _graded(value >= ALIKE, value < UNLIKE), text)


def _graded(good: bool, bad: bool) -> Status:
    return "good" if good else "bad" if bad else "mixed"


def _judged(ledger: ScoreIndex, method: str, *names: str) -> tuple[MetricScores, MapScores] | None:
    asked = ledger.find(*names)
    map = asked.of(method) if asked else None
    return (asked, map) if asked and map else None


def _wins(gain: Comparison) -> bool:
    return gain.is_clear and gain.difference > 0


def _mean(map: MapScores) -> str:
    """The mean with its interval, where there is one."""
    interval = map.summary.interval
    if interval is None:
        return fixed(map.summary.mean, decimals([map.summary.mean]))
    low, high = (fixed(value, decimals(interval)) for value in interval)
    return f"{fixed(map.summary.mean, decimals(interval))}, interval {low} to {high}"


def _mean_of(map: MapScores, beside: MapScores) -> str:
    """The mean with as many decimals as tell it from the other."""
    means = (map.summary.mean, beside.summary.mean)
    return fixed(means[0], decimals(means))


def _cases(map: MapScores) -> str:
    """How many cases stand behind a number."""
    return _on(len(map.known), map.summary.patients)


def _on(cases: int, patients: int) -> str:
    counted = _counted(cases, patients)
    return f", on {counted} only" if patients < FEWEST else f", {counted}"


def _counted(cases: int, patients: int) -> str:
    """The cases, and their patients where these are fewer."""
    counted = f"{cases} {'case' if cases == 1 else 'cases'}"
    if patients == cases:
        return counted
    return f"{counted} of {patients} {'patient' if patients == 1 else 'patients'}"


def _why(map: MapScores) -> str:
    return f": {'; '.join(map.reasons)}" if map.reasons else ""


def _named(control: str) -> str:
    return {
        "random": "a random map",
        "edges": "an edge detector",
        "intensity": "the brightness of the image",
        "center": "a spot in the middle",
    }.get(control, control)
