"""Strip plots: every case as a point, a plot per metric with a line per map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from voxplain.report.trust.score_index import CEILING, MapScores, MetricScores, map_label
from voxplain.report.trust.tables import ARROWS, ranked
from voxplain.viz.words import decimals, fixed

LEFT, WIDTH, LINE, TOP = 152.0, 380.0, 19.0, 8.0
"""Room for names, width, height of a line and room above, in units of the SVG."""

CROWD = 40
"""Cases up to which a line shows points; for more it shows quartiles."""


@dataclass(frozen=True)
class Line:
    """One map.

    Attributes:
        name: On the page.
        control: Whether it is a control.
        y: The middle of the line.
        points: One per case.
        mean: Over the cases; None where no value is defined.
        interval: 95 % interval of the mean; None for few cases.
        quartiles: Of the cases, where these are too many for points.
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
    """The plot of one metric.

    Attributes:
        heading: Its name.
        better: Which direction is better, in words.
        lines: Methods from the best mean to the worst, then controls.
        divider: The y between methods and controls; None without controls.
        best_control: The x of the best mean of a control except the ceiling; None without any.
        ticks: ``(x, text, anchor)``.
        height: Of the drawing.
        alt: What it shows, in words.
    """

    heading: str
    better: str
    lines: tuple[Line, ...]
    divider: float | None
    best_control: float | None
    ticks: tuple[tuple[float, str, str], ...]
    height: float
    alt: str


def strip_plot(metric: MetricScores) -> Strip | None:
    """The plot of one metric; None where no value is defined."""
    controls = [scores for scores in metric.controls if scores.defined]
    maps = [*ranked(metric.methods, metric.better), *controls]
    values = [value for scores in maps for value in scores.defined]
    if not values:
        return None
    scale = _Scale.over(values)
    lines = [_line(scores, row, scale, bool(controls)) for row, scores in enumerate(maps)]
    count = len(metric.methods)
    divider = TOP + count * LINE + 4 if controls and count else None
    better = ARROWS.get(metric.first.direction, ("", ""))[1]
    return Strip(
        metric.heading,
        better,
        tuple(lines),
        divider,
        _best_control(metric, scale),
        scale.ticks(),
        TOP + len(maps) * LINE + (8 if divider else 0) + 22,
        _alternative_text(metric, maps, better),
    )


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float

    @classmethod
    def over(cls, values: Sequence[float]) -> _Scale:
        low, high = min(values), max(values)
        margin = (high - low) * 0.04 or max(abs(high), 1.0) * 0.1
        return cls(low - margin, high + margin)

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(LEFT + share * (WIDTH - LEFT - 8), 1)

    def ticks(self) -> tuple[tuple[float, str, str], ...]:
        margin = (self.high - self.low) * 0.04 / 1.08
        ends = [(self.low + margin, "start"), (self.high - margin, "end")]
        places = decimals(value for value, _ in ends)
        ticks = [(self(value), fixed(value, places), anchor) for value, anchor in ends]
        inside = self.low + 3 * margin < 0 < self.high - 3 * margin
        zero = self(0.0) if inside else None
        if zero is not None and LEFT + 50 < zero < WIDTH - 58:
            ticks.append((zero, "0", "middle"))
        return tuple(ticks)


def _line(scores: MapScores, row: int, scale: _Scale, with_controls: bool) -> Line:
    crowd = len(scores.defined) > CROWD
    interval, quartiles = scores.summary.interval, scores.summary.quartiles
    return Line(
        map_label(scores.method),
        scores.control,
        TOP + (row + 0.5) * LINE + (8 if scores.control and with_controls else 0),
        () if crowd else tuple(scale(value) for value in scores.defined),
        scale(scores.summary.mean) if scores.defined else None,
        (scale(interval[0]), scale(interval[1])) if interval else None,
        (scale(quartiles[0]), scale(quartiles[1])) if crowd else None,
    )


def _best_control(metric: MetricScores, scale: _Scale) -> float | None:
    rivals = [scores for scores in metric.controls if scores.defined and scores.method != CEILING]
    if not rivals or not metric.better:
        return None
    return scale(ranked(rivals, metric.better)[0].summary.mean)


def _alternative_text(metric: MetricScores, maps: Sequence[MapScores], better: str) -> str:
    places = decimals(scores.summary.mean for scores in maps if scores.defined)
    means = [
        f"{map_label(scores.method)} "
        f"{fixed(scores.summary.mean, places) if scores.defined else 'undefined'}"
        for scores in maps
    ]
    direction = f", {better}" if better else ""
    return f"{metric.heading}{direction}. Means: {', '.join(means)}."
