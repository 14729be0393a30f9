"""Curves of metrics as small multiples: a panel per method, the controls dashed in each."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from voxplain.report.trust.plot_frame import Curve, Frame, Multiples, PlotPanel, Points
from voxplain.report.trust.score_index import CEILING, MapScores, MetricScores, map_label
from voxplain.viz.words import decimals, fixed

_MOST_LINES = 12


def curve_panels(metric: MetricScores) -> Multiples | None:
    """The curves whose area or mean a metric is; None where it has none."""
    curves = {scores.method: _curves(scores) for scores in metric.maps}
    methods = [scores.method for scores in metric.methods if curves[scores.method]]
    controls = [scores.method for scores in metric.controls if curves[scores.method]]
    controls = [method for method in controls if method != CEILING]
    if not methods:
        return None
    frame = Frame.around([curve for of_map in curves.values() for curve in of_map])
    background = [Curve(name, frame.line(_mean_curve(curves[name]))) for name in controls]
    panels = [_panel(name, curves[name], background, frame) for name in methods]
    legend = [("map", "mean of the map")]
    if any(len(curves[name]) > 1 for name in methods):
        legend.append(("case", "single cases"))
    legend += [(name, map_label(name)) for name in controls]
    return Multiples(metric.heading, _x_label(metric), tuple(panels), tuple(legend))


def _panel(
    method: str, of_cases: list[Points], background: Sequence[Curve], frame: Frame
) -> PlotPanel:
    lines, bands = list(background), []
    if 1 < len(of_cases) <= _MOST_LINES:
        lines += [Curve("case", frame.line(curve)) for curve in of_cases]
    elif len(of_cases) > _MOST_LINES:
        x, table = _table(of_cases)
        low, high = np.quantile(table, [0.25, 0.75], axis=0)
        bands.append(("map", frame.band(x, low, high)))
    mean = _mean_curve(of_cases)
    lines.append(Curve("map", frame.line(mean)))
    name = map_label(method)
    first, last = (fixed(float(mean[1][end]), decimals(mean[1])) for end in (0, -1))
    alt = f"{name}: from {first} to {last}."
    return PlotPanel(name, tuple(lines), tuple(bands), frame.ends(), frame.levels(), alt)


def _curves(scores: MapScores) -> list[Points]:
    """The finite points of each case with at least two of them, sorted along x."""
    curves = []
    for row in scores.rows:
        points = np.array([p for p in row.curve if math.isfinite(p[0]) and math.isfinite(p[1])])
        if len(points) > 1:
            order = np.argsort(points[:, 0], kind="stable")
            curves.append((points[order, 0], points[order, 1]))
    return curves


def _mean_curve(curves: Sequence[Points]) -> Points:
    x, table = _table(curves)
    return x, table.mean(axis=0)


def _table(curves: Sequence[Points]) -> Points:
    """All curves interpolated at the x of any of them: ``(N,)`` and ``(curves, N)``."""
    x = np.unique(np.concatenate([curve[0] for curve in curves]))
    return x, np.stack([np.interp(x, *curve) for curve in curves])


def _x_label(metric: MetricScores) -> str:
    if metric.first.family == "randomization":
        return "share of the stages that is random"
    return "share of the image" if metric.first.family in ("faithfulness", "segmentation") else ""
