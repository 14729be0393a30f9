"""Curves of metrics as small multiples: one panel per method, the controls dashed in each."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from voxplain.report.trust.cascade_strip import label
from voxplain.report.trust.plot_frame import Curve, Frame, Multiples, PlotPanel, Points
from voxplain.report.trust.score_index import CEILING, MapScores, MetricScores
from voxplain.viz.words import decimals, fixed

_MOST_LINES = 12


def curve_panels(asked: MetricScores) -> Multiples | None:
    """The curves behind one metric; None where it has none."""
    drawn = {map.method: found for map in asked.maps if len(found := _curves(map))}
    methods = [map for map in asked.methods if map.method in drawn]
    controls = [map for map in asked.controls if map.method in drawn and map.method != CEILING]
    if not methods:
        return None
    frame = Frame.around([points for found in drawn.values() for points in found])
    behind = [Curve(map.method, frame.line(_mean_curve(drawn[map.method]))) for map in controls]
    panels = [_panel(map, drawn[map.method], behind, frame) for map in methods]
    legend = [("map", "mean of the map")]
    if any(len(drawn[map.method]) > 1 for map in methods):
        legend.append(("case", "single cases"))
    legend += [(map.method, label(map.method)) for map in controls]
    return Multiples(asked.heading, _along(asked), tuple(panels), tuple(legend))


def _panel(map: MapScores, found: list[Points], behind: Sequence[Curve], frame: Frame) -> PlotPanel:
    curves, bands = list(behind), []
    if 1 < len(found) <= _MOST_LINES:
        curves += [Curve("case", frame.line(curve)) for curve in found]
    elif len(found) > _MOST_LINES:
        x, table = _table(found)
        low, high = np.quantile(table, [0.25, 0.75], axis=0)
        bands.append(("map", frame.band(x, low, high)))
    mean = _mean_curve(found)
    curves.append(Curve("map", frame.line(mean)))
    name = label(map.method)
    first, last = (fixed(float(mean[1][end]), decimals(mean[1])) for end in (0, -1))
    alt = f"{name}: from {first} to {last}."
    return PlotPanel(name, tuple(curves), tuple(bands), frame.ends(), frame.levels(), alt)


def _curves(map: MapScores) -> list[Points]:
    found = []
    for row in map.rows:
        points = np.array([p for p in row.curve if math.isfinite(p[0]) and math.isfinite(p[1])])
        if len(points) > 1:
            order = np.argsort(points[:, 0], kind="stable")
            found.append((points[order, 0], points[order, 1]))
    return found


def _mean_curve(curves: Sequence[Points]) -> Points:
    x, table = _table(curves)
    return x, table.mean(axis=0)


def _table(curves: Sequence[Points]) -> Points:
    """All curves at all of their places ``(places,)``, ``(curves, places)``."""
    x = np.unique(np.concatenate([curve[0] for curve in curves]))
    return x, np.stack([np.interp(x, *curve) for curve in curves])


def _along(asked: MetricScores) -> str:
    if asked.first.family == "randomization":
        return "share of the stages that is random"
    return "share of the image" if asked.first.family in ("faithfulness", "segmentation") else ""
