"""Small multiples as data: panels of lines and bands, and the scales they are drawn in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voxplain.viz.words import decimals, fixed

Array = NDArray[np.float64]
Points = tuple[Array, Array]

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 190.0, 128.0, 44.0, 8.0, 8.0, 20.0
"""Of a panel, in its own units."""


@dataclass(frozen=True)
class Curve:
    """One line of a panel.

    Attributes:
        kind: ``map``, ``case``, a control's name, a measure, or one of several maps: what the
            style sheet draws.
        points: As the attribute of a polyline.
    """

    kind: str
    points: str


@dataclass(frozen=True)
class PlotPanel:
    """One drawing.

    Attributes:
        heading: The name of what is drawn.
        curves: From back to front.
        bands: Filled areas, as (kind, points).
        x_ticks: ``(x, text, anchor)``.
        y_ticks: ``(y, text)``.
        alt: The same in words.
        remark: What else has to be known to read it, behind the heading.
    """

    heading: str
    curves: tuple[Curve, ...]
    bands: tuple[tuple[str, str], ...]
    x_ticks: tuple[tuple[float, str, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    alt: str
    remark: str = ""


@dataclass(frozen=True)
class Multiples:
    """Panels side by side.

    Attributes:
        heading: What is drawn.
        x_label: What grows to the right.
        panels: One per method, in one scale; or one per metric, each in its own.
        legend: ``(kind, words)`` of the lines.
    """

    heading: str
    x_label: str
    panels: tuple[PlotPanel, ...]
    legend: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Frame:
    """What lies where in a panel.

    Attributes:
        left: Smallest x.
        right: Largest x.
        low: Smallest y.
        high: Largest y.
        room: How much of the height is free at either end.
    """

    left: float
    right: float
    low: float
    high: float
    room: float = 0.0

    @classmethod
    def around(cls, curves: Sequence[Points]) -> Frame:
        """The frame that holds all curves, with some room above and below."""
        xs, ys = (np.concatenate([curve[axis] for curve in curves]) for axis in (0, 1))
        low, high = float(np.nanmin(ys)), float(np.nanmax(ys))
        room = (high - low) * 0.05 or 0.5
        return cls(float(xs.min()), float(xs.max()), low - room, high + room, room)

    def x(self, value: float) -> float:
        """Where a value lies from the left."""
        share = (value - self.left) / ((self.right - self.left) or 1.0)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        """Where a value lies from the top; what is beyond the frame lies on its edge."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP), 1)

    def line(self, curve: Points) -> str:
        """A curve as the points of a polyline, without what is not finite."""
        known = np.isfinite(curve[1])
        pairs = zip(curve[0][known], curve[1][known], strict=True)
        return " ".join(f"{self.x(x)},{self.y(y)}" for x, y in pairs)

    def band(self, x: Array, low: Array, high: Array) -> str:
        """What lies between two curves as the points of a polygon."""
        known = np.isfinite(low) & np.isfinite(high)
        there = self.line((x[known], high[known]))
        return f"{there} {self.line((x[known][::-1], low[known][::-1]))}".strip()

    def ends(self) -> tuple[tuple[float, str, str], ...]:
        """Ticks at the left and the right."""
        return (
            (self.x(self.left), f"{self.left:.3g}", "start"),
            (self.x(self.right), f"{self.right:.3g}", "end"),
        )

    def levels(self) -> tuple[tuple[float, str], ...]:
        """Ticks at the smallest and the largest value, and at zero where there is a place."""
        marks = list(dict.fromkeys([self.low + self.room, self.high - self.room]))
        inside = marks[0] < 0 < marks[-1] and self.y(0) - self.y(marks[-1]) > 12
        marks += [0.0] if inside and self.y(marks[0]) - self.y(0) > 12 else []
        whole = all(value == round(value) for value in marks)
        places = 0 if whole else decimals((self.low, self.high), least=1)
        return tuple((self.y(value), fixed(value, places)) for value in marks)


def middles(table: Array) -> Array:
    """The mean of every column, NaN where nothing is known."""
    return np.array([mean(column) for column in table.T])


def bounds(table: Array) -> Points:
    """The smallest and the largest value of every column, NaN where nothing is known."""
    columns = [column[np.isfinite(column)] for column in table.T]
    low = [column.min() if len(column) else math.nan for column in columns]
    high = [column.max() if len(column) else math.nan for column in columns]
    return np.array(low), np.array(high)


def mean(values: Array) -> float:
    """Of those that are known; NaN without any."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan
