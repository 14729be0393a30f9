"""Probabilities after temperature scaling, to be shown beside those that the network states."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from voxplain.records.scores import Score


@dataclass(frozen=True)
class Calibrated:
    """The probability of the class of a target for one case.

    Attributes:
        probability: After scaling.
        temperature: By which the scores of the network were divided.
    """

    probability: float
    temperature: float


CalibratedProbabilities = dict[tuple[str, str], "Calibrated"]
"""By model and target."""


def calibrated(scores: Iterable[Score]) -> dict[str, CalibratedProbabilities]:
    """The calibrated probabilities by case."""
    found: dict[str, CalibratedProbabilities] = {}
    for row in scores:
        if row.metric == "calibration" and "probability_scaled" in row.facts:
            told = Calibrated(row.facts["probability_scaled"], row.facts["temperature"])
            found.setdefault(row.case, {})[row.model, row.target] = told
    return found
