"""Plots of a cascade over its steps: how similar the maps stay, and their scores."""

from __future__ import annotations

import math

import numpy as np

from voxplain.records.cascades import (
    MapRandomized,
    MetricFollowed,
    RandomizationRecord,
    scores_along,
    similarities,
)
from voxplain.report.trust.cascade_strip import first_and_last_step
from voxplain.report.trust.plot_frame import (
    Array,
    Curve,
    Frame,
    Multiples,
    PlotPanel,
    column_bounds,
    column_means,
    finite_mean,
)
from voxplain.report.trust.randomization_summary import MEASURES
from voxplain.report.trust.score_index import map_label
from voxplain.report.trust.tables import ARROWS
from voxplain.viz.words import decimals, fixed, number, title

HUES = 6
"""Maps with a color of their own; the next ones have the same colors, dotted."""

FAR = 3.0
"""Scores without bounds are drawn up to this many times the largest one of the trained network."""

_X_LABEL = "steps of randomization"


def similarity_panels(record: RandomizationRecord) -> Multiples:
    """Similarity with the map of the trained network, a panel per map."""
    frame = Frame(0.0, _last_step(record), -1.0, 1.0)
    return Multiples(
        "Similarity with the map of the trained network",
        _X_LABEL,
        tuple(_similarity_panel(randomized, frame, record) for randomized in record.maps),
        tuple(MEASURES.items()),
    )


def score_panels(record: RandomizationRecord) -> Multiples | None:
    """Scores of the maps of each step, a panel per metric; None without any metric."""
    styles = _styles(record)
    panels = [_score_panel(metric, record, styles) for metric in record.metrics]
    drawn = tuple(panel for panel in panels if panel is not None)
    if not drawn:
        return None
    scored = [randomized.method for randomized in record.maps if randomized.scores]
    legend = tuple((styles[method], map_label(method)) for method in scored)
    heading = "Scores of the maps, each with the network of its step"
    return Multiples(heading, _X_LABEL, drawn, legend)


def metric_heading(metric: MetricFollowed, record: RandomizationRecord) -> str:
    """The name of a metric on the page, with its parameters where another has the same name."""
    namesakes = sum(other.name == metric.name for other in record.metrics)
    settings = metric.key.removeprefix(metric.name).replace("_", " ")
    return title(metric.name) + settings * (namesakes > 1)


def _similarity_panel(
    randomized: MapRandomized, frame: Frame, record: RandomizationRecord
) -> PlotPanel:
    measured = [name for name in MEASURES if randomized.similarity.get(name)]
    tables = {name: similarities(randomized, name) for name in measured}
    curves, bands, last = list[Curve](), list[tuple[str, str]](), list[str]()
    for name, table in tables.items():
        line, band = _line(table, name, frame)
        chances = [value for value in randomized.chance.get(name, []) if value is not None]
        chance = finite_mean(np.array(chances))
        ends = (np.array([0.93, 1.0]) * frame.right, np.array([chance, chance]))
        curves += [line, *[Curve(f"{name} chance", frame.line(ends))] * math.isfinite(chance)]
        bands += band
        last.append(f"{MEASURES[name]} {fixed(finite_mean(table[:, -1]))}")
    heading, ticks = map_label(randomized.method), _ticks(frame, record)
    alt = f"{heading} after the last step: {', '.join(last)}."
    return PlotPanel(heading, tuple(curves), tuple(bands), ticks, frame.levels(), alt)


def _score_panel(
    metric: MetricFollowed, record: RandomizationRecord, styles: dict[str, str]
) -> PlotPanel | None:
    tables = {randomized.method: scores_along(randomized, metric.key) for randomized in record.maps}
    scored = {name: table for name, table in tables.items() if np.isfinite(table).any()}
    if not scored:
        return None
    limit = _limit(metric, list(scored.values()))
    frame = _frame([table.clip(-limit, limit) for table in scored.values()], record)
    curves, bands = list[Curve](), list[tuple[str, str]]()
    for name, table in reversed(scored.items()):  # controls at the back
        line, band = _line(table, styles[name], frame)
        curves.append(line)
        bands += band
    better = ARROWS[metric.direction][1]
    cut = f"cut at ±{number(limit)}" if math.isfinite(limit) else ""
    heading, ticks = metric_heading(metric, record), _ticks(frame, record)
    remark = ", ".join(filter(None, (better, metric.unit, cut)))
    alt = f"{heading}, {remark}: {_in_words(scored)}."
    return PlotPanel(heading, tuple(curves), tuple(bands), ticks, frame.levels(), alt, remark)


def _line(table: Array, style: str, frame: Frame) -> tuple[Curve, list[tuple[str, str]]]:
    """The mean over seeds ``(seeds, steps)``, and the band of all seeds where there are several."""
    steps = np.arange(table.shape[1], dtype=np.float64)
    line = Curve(style, frame.line((steps, column_means(table))))
    band = (style, frame.band(steps, *column_bounds(table)))
    return line, [band] if len(table) > 1 else []


def _limit(metric: MetricFollowed, tables: list[Array]) -> float:
    """The magnitude at which curves are cut that would flatten those of the trained network."""
    if None not in (metric.minimum, metric.maximum):
        return math.inf
    trained = max(float(np.nanmax(np.abs(table[:, 0]), initial=0.0)) for table in tables)
    largest = max(float(np.nanmax(np.abs(table))) for table in tables)
    return FAR * trained if 0 < 2 * FAR * trained < largest else math.inf


def _frame(tables: list[Array], record: RandomizationRecord) -> Frame:
    """Axes that hold all curves, and zero where that leaves the curves half of the height."""
    values = np.concatenate([table.ravel() for table in tables])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if 0 < low <= high / 2 or 0 > high >= low / 2:
        values = np.append(values, 0.0)
    steps = np.linspace(0.0, _last_step(record), len(values))
    return Frame.around([(steps, values)])


def _ticks(frame: Frame, record: RandomizationRecord) -> tuple[tuple[float, str, str], ...]:
    first, last = first_and_last_step(record)
    return ((frame.x(0), first, "start"), (frame.x(frame.right), last, "end"))


def _in_words(tables: dict[str, Array]) -> str:
    changes = []
    for name, table in tables.items():
        ends = (finite_mean(table[:, 0]), finite_mean(table[:, -1]))
        first, last = (fixed(end, decimals(ends)) for end in ends)
        changes.append(f"{map_label(name)} from {first} to {last}")
    return "; ".join(changes)


def _styles(record: RandomizationRecord) -> dict[str, str]:
    """CSS classes of the lines by map; controls have the same ones as in other plots."""
    methods = [randomized.method for randomized in record.maps if not randomized.control]
    styles = {name: f"m{n % HUES}" + " again" * (n >= HUES) for n, name in enumerate(methods)}
    return {
        randomized.method: styles.get(randomized.method, randomized.method)
        for randomized in record.maps
    }


def _last_step(record: RandomizationRecord) -> float:
    return float(max(len(record.stages) - 1, 1))
