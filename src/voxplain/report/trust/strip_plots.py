"""Every case as a point: one small plot per metric, the best method on top, controls below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from voxplain.report.trust.cascade_strip import label
from voxplain.report.trust.score_index import CEILING, MapScores, MetricScores
from voxplain.report.trust.tables import ARROWS, ranked
from voxplain.viz.words import decimals, fixed

LEFT, WIDTH, LINE, TOP = 152.0, 380.0, 19.0, 8.0
"""Of the drawing, in its own units: room for names, width, height of a row, room above."""

CROWD = 40
"""Beyond so many cases a row shows its quartiles instead of points."""


@dataclass(frozen=True)
class Line:
    """One map.

    Attributes:
        name: As it is called.
        control: Whether it is a control.
        y: Where it lies.
        points: Of the cases.
        mean: Over the cases; None where nothing is defined.
        interval: 95 % of the mean; None for few cases.
        quartiles: Where points would be too many.
    """

    name: str
    control: bool
    y: float
    points: tuple[float, ...]
    mean: float | None
    interval: tuple[float, float] | None
    quartiles: tuple[float, float] | None


@dataclass(frozen=True)
class Strip:
    """One metric.

    Attributes:
        heading: Its name.
        better: Which way is better, in words.
        lines: Methods from the best mean on, then controls.
        rule: Where the line between methods and controls is; None without controls.
        best: Where the mean of the best control lies, the ceiling left out; None without.
        ticks: Of the axis, with their text.
        height: Of the drawing.
        alt: The same in words.
    """

    heading: str
    better: str
    lines: tuple[Line, ...]
    rule: float | None
    best: float | None
    ticks: tuple[tuple[float, str, str], ...]
    height: float
    alt: str


def strip_plot(asked: MetricScores) -> Strip | None:
    """The plot of one metric; None where no value is defined."""
    controls = [part for part in asked.controls if part.known]
    maps = [*ranked(asked.methods, asked.better), *controls]
    values = [value for map in maps for value in map.known]
    if not values:
        return None
    scale = _Scale.over(values)
    lines = [_line(map, row, scale, bool(controls)) for row, map in enumerate(maps)]
    count = len(asked.methods)
    rule = TOP + count * LINE + 4 if controls and count else None
    better = ARROWS.get(asked.first.direction, ("", ""))[1]
    return Strip(
        asked.heading,
        better,
        tuple(lines),
        rule,
        _best(asked, scale),
        scale.ticks(),
        TOP + len(maps) * LINE + (8 if rule else 0) + 22,
        _alternative(asked, maps, better),
    )


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float

    @classmethod
    def over(cls, values: Sequence[float]) -> _Scale:
        low, high = min(values), max(values)
        room = (high - low) * 0.04 or max(abs(high), 1.0) * 0.1
        return cls(low - room, high + room)

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(LEFT + share * (WIDTH - LEFT - 8), 1)

    def ticks(self) -> tuple[tuple[float, str, str], ...]:
        room = (self.high - self.low) * 0.04 / 1.08
        ends = [(self.low + room, "start"), (self.high - room, "end")]
        places = decimals(value for value, _ in ends)
        found = [(self(value), fixed(value, places), anchor) for value, anchor in ends]
        inside = self.low + 3 * room < 0 < self.high - 3 * room
        zero = self(0.0) if inside else None
        if zero is not None and LEFT + 50 < zero < WIDTH - 58:
            found.append((zero, "0", "middle"))
        return tuple(found)


def _line(map: MapScores, row: int, scale: _Scale, lower: bool) -> Line:
    y = TOP + (row + 0.5) * LINE + (8 if map.control and lower else 0)
    known = map.known
    crowd = len(known) > CROWD
    interval = map.summary.interval
    return Line(
        label(map.method),
        map.control,
        y,
        () if crowd else tuple(scale(value) for value in known),
        scale(map.summary.mean) if known else None,
        (scale(interval[0]), scale(interval[1])) if interval else None,
        (scale(map.summary.quartiles[0]), scale(map.summary.quartiles[1])) if crowd else None,
    )


def _best(asked: MetricScores, scale: _Scale) -> float | None:
    rivals = [part for part in asked.controls if part.known and part.method != CEILING]
    if not rivals or not asked.better:
        return None
    return scale(ranked(rivals, asked.better)[0].summary.mean)


def _alternative(asked: MetricScores, maps: Sequence[MapScores], better: str) -> str:
    places = decimals(map.summary.mean for map in maps if map.known)
    parts = [
        f"{label(map.method)} {fixed(map.summary.mean, places) if map.known else 'undefined'}"
        for map in maps
    ]
    direction = f", {better}" if better else ""
    return f"{asked.heading}{direction}. Means: {', '.join(parts)}."
