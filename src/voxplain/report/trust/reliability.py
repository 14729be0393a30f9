"""How often a network is right beside how often it says so: the curve behind its calibration."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from voxplain.report.trust.cascade_strip import label
from voxplain.report.trust.plot_frame import Curve, Frame, Multiples, PlotPanel, Points
from voxplain.report.trust.score_index import MetricScores
from voxplain.viz.words import percent

MOST = 12
"""Images that are drawn as lines of their own, where each has a curve."""

_EVEN = "even"


def reliability(asked: MetricScores) -> Multiples | None:
    """The share of what is there over the probability that was said; None without any curve.

    The curve of a classifier is that of all cases; dense outputs have one per image.
    """
    rows = (row for part in asked.methods for row in part.rows)
    found = [np.array(curve) for curve in dict.fromkeys(row.curve for row in rows) if curve]
    if not found:
        return None
    frame = Frame(0.0, 1.0, 0.0, 1.0)
    x, y = _together(found, int(asked.first.parameters.get("bins", 15)))
    alone = found if 1 < len(found) <= MOST else []
    ends = np.array([0.0, 1.0])
    curves = [
        Curve(_EVEN, frame.line((ends, ends))),
        *(Curve("case", frame.line((curve[:, 0], curve[:, 1]))) for curve in alone),
        Curve("map", frame.line((x, y))),
    ]
    name = label("")
    alt = f"{name}: what it says with {percent(x[-1])} is there in {percent(y[-1])}."
    panel = PlotPanel(name, tuple(curves), (), frame.ends(), frame.levels(), alt)
    legend = [("map", "network"), *([("case", "single images")] if alone else [])]
    return Multiples(
        f"{asked.heading}: how often the class is there",
        "probability that was said",
        (panel,),
        (*legend, (_EVEN, "as often as said")),
    )


def _together(curves: Sequence[np.ndarray], bins: int) -> Points:
    """The mean point of every bin, over the images that have one."""
    points = np.concatenate(curves)
    place = np.clip(np.ceil(points[:, 0] * bins), 1, bins)
    means = np.array([points[place == number].mean(axis=0) for number in np.unique(place)])
    return means[:, 0], means[:, 1]
