"""Curves of metrics as small multiples: one panel per method, the controls dashed in each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voxplain.io.randomization import MapRandomized, RandomizationRecord, similarities
from voxplain.report.cascade import ends_of, label
from voxplain.report.ledger import CEILING, Asked, Judged
from voxplain.report.survival import MEASURES
from voxplain.report.words import decimals, fixed

Array = NDArray[np.float64]
Points = tuple[Array, Array]

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 190.0, 128.0, 44.0, 8.0, 8.0, 20.0
"""Of a panel, in its own units."""

_MOST_LINES = 12


@dataclass(frozen=True)
class Curve:
    """One line of a panel.

    Attributes:
        kind: ``map``, ``case``, a control's name, or a measure: what the style sheet draws.
        points: As the attribute of a polyline.
    """

    kind: str
    points: str


@dataclass(frozen=True)
class Panel:
    """One method.

    Attributes:
        heading: Its name.
        curves: From back to front.
        bands: Filled areas, as (kind, points).
        x_ticks: ``(x, text, anchor)``.
        y_ticks: ``(y, text)``.
        alt: The same in words.
    """

    heading: str
    curves: tuple[Curve, ...]
    bands: tuple[tuple[str, str], ...]
    x_ticks: tuple[tuple[float, str, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    alt: str


@dataclass(frozen=True)
class Multiples:
    """Panels with one scale.

    Attributes:
        heading: What is drawn.
        x_label: What grows to the right.
        panels: One per method.
        legend: ``(kind, words)`` of the lines.
    """

    heading: str
    x_label: str
    panels: tuple[Panel, ...]
    legend: tuple[tuple[str, str], ...]


def curve_panels(asked: Asked) -> Multiples | None:
    """The curves behind one metric; None where it has none."""
    drawn = {map.method: found for map in asked.maps if len(found := _curves(map))}
    methods = [map for map in asked.methods if map.method in drawn]
    controls = [map for map in asked.controls if map.method in drawn and map.method != CEILING]
    if not methods:
        return None
    frame = _Frame.around([points for found in drawn.values() for points in found])
    behind = [Curve(map.method, frame.line(_mean_curve(drawn[map.method]))) for map in controls]
    panels = [_panel(map, drawn[map.method], behind, frame) for map in methods]
    legend = [("map", "mean of the map")]
    if any(len(drawn[map.method]) > 1 for map in methods):
        legend.append(("case", "single cases"))
    legend += [(map.method, label(map.method)) for map in controls]
    return Multiples(asked.heading, _along(asked), tuple(panels), tuple(legend))


def cascade_panels(record: RandomizationRecord) -> Multiples:
    """Similarity with the trained network's map over the steps of a cascade."""
    last = float(max(len(record.stages) - 1, 1))
    frame = _Frame(0.0, last, -1.0, 1.0)
    return Multiples(
        "Similarity with the map of the trained network",
        "steps of randomization",
        tuple(_cascade_panel(map, frame, ends_of(record)) for map in record.maps),
        tuple(MEASURES.items()),
    )


def _cascade_panel(map: MapRandomized, frame: _Frame, names: tuple[str, str]) -> Panel:
    tables = {name: similarities(map, name) for name in MEASURES if map.similarity.get(name)}
    curves, bands, last = list[Curve](), list[tuple[str, str]](), list[str]()
    for name, table in tables.items():
        steps = np.arange(table.shape[1], dtype=np.float64)
        middle = np.array([_mean(column) for column in table.T])
        curves.append(Curve(name, frame.line((steps, middle))))
        last.append(f"{MEASURES[name]} {fixed(float(middle[-1]))}")
        if len(table) > 1:
            bands.append((name, frame.band(steps, *_bounds(table))))
        chance = _mean(np.array([v for v in map.chance.get(name, []) if v is not None]))
        ends = (np.array([0.93, 1.0]) * frame.right, np.array([chance, chance]))
        curves += [Curve(f"{name} chance", frame.line(ends))] if math.isfinite(chance) else []
    ticks = ((frame.x(0), names[0], "start"), (frame.x(frame.right), names[1], "end"))
    alt = f"{label(map.method)} after the last step: {', '.join(last)}."
    return Panel(label(map.method), tuple(curves), tuple(bands), ticks, frame.levels(), alt)


@dataclass(frozen=True)
class _Frame:
    left: float
    right: float
    low: float
    high: float

    @classmethod
    def around(cls, curves: Sequence[Points]) -> _Frame:
        xs, ys = (np.concatenate([curve[axis] for curve in curves]) for axis in (0, 1))
        low, high = float(ys.min()), float(ys.max())
        room = (high - low) * 0.05 or 0.5
        return cls(float(xs.min()), float(xs.max()), low - room, high + room)

    def x(self, value: float) -> float:
        share = (value - self.left) / ((self.right - self.left) or 1.0)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP), 1)

    def line(self, curve: Points) -> str:
        known = np.isfinite(curve[1])
        pairs = zip(curve[0][known], curve[1][known], strict=True)
        return " ".join(f"{self.x(x)},{self.y(y)}" for x, y in pairs)

    def band(self, x: Array, low: Array, high: Array) -> str:
        known = np.isfinite(low) & np.isfinite(high)
        there = self.line((x[known], high[known]))
        return f"{there} {self.line((x[known][::-1], low[known][::-1]))}".strip()

    def ends(self) -> tuple[tuple[float, str, str], ...]:
        return (
            (self.x(self.left), f"{self.left:.3g}", "start"),
            (self.x(self.right), f"{self.right:.3g}", "end"),
        )

    def levels(self) -> tuple[tuple[float, str], ...]:
        room = (self.high - self.low) * 0.05 / 1.1 if self.low != -1 else 0.0
        marks = [self.low + room, self.high - room]
        inside = marks[0] < 0 < marks[1] and self.y(0) - self.y(marks[1]) > 12
        marks += [0.0] if inside and self.y(marks[0]) - self.y(0) > 12 else []
        whole = all(value == round(value) for value in marks)
        places = 0 if whole else decimals((self.low, self.high), least=1)
        return tuple((self.y(value), fixed(value, places)) for value in marks)


def _panel(map: Judged, found: list[Points], behind: Sequence[Curve], frame: _Frame) -> Panel:
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
    return Panel(name, tuple(curves), tuple(bands), frame.ends(), frame.levels(), alt)


def _curves(map: Judged) -> list[Points]:
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


def _bounds(table: Array) -> Points:
    columns = [column[np.isfinite(column)] for column in table.T]
    low = [column.min() if len(column) else math.nan for column in columns]
    high = [column.max() if len(column) else math.nan for column in columns]
    return np.array(low), np.array(high)


def _mean(values: Array) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan


def _along(asked: Asked) -> str:
    if asked.first.family == "randomization":
        return "share of the stages that is random"
    return "share of the image" if asked.first.family in ("faithfulness", "segmentation") else ""
