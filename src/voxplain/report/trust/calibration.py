"""Calibration of a network: probabilities after temperature scaling, and reliability diagrams."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from voxplain.records.scores import Score
from voxplain.report.trust.plot_frame import Array, Curve, Frame, Multiples, PlotPanel, Points
from voxplain.report.trust.score_index import MetricScores, map_label
from voxplain.viz.words import percent

MOST = 12
"""Images up to which each is drawn as a line of its own."""

_PERFECT = "even"


@dataclass(frozen=True)
class Calibrated:
    """The calibrated probability of the class of a target, for one case.

    Attributes:
        probability: After temperature scaling.
        temperature: The divisor of the scores of the network.
    """

    probability: float
    temperature: float


CalibratedProbabilities = dict[tuple[str, str], Calibrated]
"""By model and target."""


def calibrated(scores: Iterable[Score]) -> dict[str, CalibratedProbabilities]:
    """The calibrated probabilities of each case."""
    by_case: dict[str, CalibratedProbabilities] = {}
    for row in scores:
        if row.metric == "calibration" and "probability_scaled" in row.facts:
            scaled = Calibrated(row.facts["probability_scaled"], row.facts["temperature"])
            by_case.setdefault(row.case, {})[row.model, row.target] = scaled
    return by_case


def reliability_diagram(metric: MetricScores) -> Multiples | None:
    """How often the class is present over the predicted probability; None without any curve.

    A classifier has one curve for all cases; dense outputs have one per image.
    """
    rows = (row for scores in metric.methods for row in scores.rows)
    curves = [np.array(curve) for curve in dict.fromkeys(row.curve for row in rows) if curve]
    if not curves:
        return None
    frame = Frame(0.0, 1.0, 0.0, 1.0)
    x, y = _mean_per_bin(curves, int(metric.first.parameters.get("bins", 15)))
    single = curves if 1 < len(curves) <= MOST else []
    ends = np.array([0.0, 1.0])
    lines = [
        Curve(_PERFECT, frame.line((ends, ends))),
        *(Curve("case", frame.line((curve[:, 0], curve[:, 1]))) for curve in single),
        Curve("map", frame.line((x, y))),
    ]
    name = map_label("")
    alt = f"{name}: what it predicts with {percent(x[-1])} is present in {percent(y[-1])}."
    panel = PlotPanel(name, tuple(lines), (), frame.ends(), frame.levels(), alt)
    legend = [("map", "network"), *([("case", "single images")] if single else [])]
    return Multiples(
        f"{metric.heading}: how often the class is present",
        "predicted probability",
        (panel,),
        (*legend, (_PERFECT, "perfectly calibrated")),
    )


def _mean_per_bin(curves: Sequence[Array], bins: int) -> Points:
    """The mean point of each bin, over the images that have a point there."""
    points = np.concatenate(curves)
    number = np.clip(np.ceil(points[:, 0] * bins), 1, bins)
    means = np.array([points[number == n].mean(axis=0) for n in np.unique(number)])
    return means[:, 0], means[:, 1]
