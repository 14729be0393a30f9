"""Small multiples as data: panels of lines and bands, and the axes that they are drawn in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voxplain.viz.words import decimals, fixed

Array = NDArray[np.float64]
Points = tuple[Array, Array]
"""Values along x and y."""

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 190.0, 128.0, 44.0, 8.0, 8.0, 20.0
"""Size and margins of a panel, in units of its SVG."""


@dataclass(frozen=True)
class Curve:
    """One line of a panel.

    Attributes:
        kind: The style of the line: ``map``, ``case``, the name of a control or measure, or one
            of several maps (``m0``, ``m1`` ...).
        points: The attribute of an SVG polyline.
    """

    kind: str
    points: str


@dataclass(frozen=True)
class PlotPanel:
    """One plot.

    Attributes:
        heading: The name of what is plotted.
        curves: From back to front.
        bands: Filled areas as (kind, points).
        x_ticks: ``(x, text, anchor)``.
        y_ticks: ``(y, text)``.
        alt: What it shows, in words.
        remark: A note after the heading, such as direction and unit.
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
        heading: What is plotted.
        x_label: Of the horizontal axis.
        panels: One per method on common axes, or one per metric, each on axes of its own.
        legend: ``(kind, words)`` of the lines.
    """

    heading: str
    x_label: str
    panels: tuple[PlotPanel, ...]
    legend: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Frame:
    """The axes of a panel.

    Attributes:
        left: Smallest x.
        right: Largest x.
        low: Smallest y.
        high: Largest y.
        margin: How far the axis reaches beyond the values at either end of y.
    """

    left: float
    right: float
    low: float
    high: float
    margin: float = 0.0

    @classmethod
    def around(cls, curves: Sequence[Points]) -> Frame:
        """The axes that hold all curves, with a margin above and below."""
        xs, ys = (np.concatenate([curve[axis] for curve in curves]) for axis in (0, 1))
        low, high = float(np.nanmin(ys)), float(np.nanmax(ys))
        margin = (high - low) * 0.05 or 0.5
        return cls(float(xs.min()), float(xs.max()), low - margin, high + margin, margin)

    def x(self, value: float) -> float:
        """The distance of a value from the left."""
        share = (value - self.left) / ((self.right - self.left) or 1.0)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        """The distance of a value from the top; beyond the axis it is at its end."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP), 1)

    def line(self, curve: Points) -> str:
        """A curve as points of an SVG polyline, without values that are not finite."""
        finite = np.isfinite(curve[1])
        pairs = zip(curve[0][finite], curve[1][finite], strict=True)
        return " ".join(f"{self.x(x)},{self.y(y)}" for x, y in pairs)

    def band(self, x: Array, low: Array, high: Array) -> str:
        """The area between two curves as points of an SVG polygon."""
        finite = np.isfinite(low) & np.isfinite(high)
        upper = self.line((x[finite], high[finite]))
        lower = self.line((x[finite][::-1], low[finite][::-1]))
        return f"{upper} {lower}".strip()

    def ends(self) -> tuple[tuple[float, str, str], ...]:
        """Ticks at both ends of x."""
        return (
            (self.x(self.left), f"{self.left:.3g}", "start"),
            (self.x(self.right), f"{self.right:.3g}", "end"),
        )

    def levels(self) -> tuple[tuple[float, str], ...]:
        """Ticks at the smallest and the largest y, and at zero where there is room for it."""
        values = list(dict.fromkeys([self.low + self.margin, self.high - self.margin]))
        inside = values[0] < 0 < values[-1] and self.y(0) - self.y(values[-1]) > 12
        values += [0.0] if inside and self.y(values[0]) - self.y(0) > 12 else []
        integers = all(value == round(value) for value in values)
        places = 0 if integers else decimals((self.low, self.high), least=1)
        return tuple((self.y(value), fixed(value, places)) for value in values)


def column_means(table: Array) -> Array:
    """The mean of the finite values of each column; NaN without any."""
    return np.array([finite_mean(column) for column in table.T])


def column_bounds(table: Array) -> Points:
    """The smallest and the largest finite value of each column; NaN without any."""
    columns = [column[np.isfinite(column)] for column in table.T]
    low = [column.min() if len(column) else math.nan for column in columns]
    high = [column.max() if len(column) else math.nan for column in columns]
    return np.array(low), np.array(high)


def finite_mean(values: Array) -> float:
    """The mean of the finite values; NaN without any."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else math.nan
