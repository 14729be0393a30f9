"""Maps over the steps of a cascade: how alike they stay, and what metrics say of each."""

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
from voxplain.report.trust.cascade_strip import ends_of, label
from voxplain.report.trust.plot_frame import (
    Array,
    Curve,
    Frame,
    Multiples,
    PlotPanel,
    bounds,
    mean,
    middles,
)
from voxplain.report.trust.randomization_summary import MEASURES
from voxplain.report.trust.tables import ARROWS
from voxplain.viz.words import decimals, fixed, number, title

HUES = 6
"""Maps that have a color of their own; the next ones have the same colors, dotted."""

FAR = 3.0
"""Scores without bounds are drawn up to so many times the largest one of the trained network."""

_ALONG = "steps of randomization"


def similarity_panels(record: RandomizationRecord) -> Multiples:
    """Similarity with the trained network's map, a panel per map."""
    frame = Frame(0.0, _last(record), -1.0, 1.0)
    return Multiples(
        "Similarity with the map of the trained network",
        _ALONG,
        tuple(_similarity_panel(map, frame, record) for map in record.maps),
        tuple(MEASURES.items()),
    )


def score_panels(record: RandomizationRecord) -> Multiples | None:
    """What metrics say of every step's map, a panel per metric; None where none was asked."""
    kinds = _kinds(record)
    panels = [_score_panel(metric, record, kinds) for metric in record.metrics]
    drawn = tuple(panel for panel in panels if panel is not None)
    if not drawn:
        return None
    legend = tuple((kinds[map.method], label(map.method)) for map in record.maps if map.scores)
    return Multiples("Scores of the maps, each asked of its own network", _ALONG, drawn, legend)


def metric_heading(metric: MetricFollowed, record: RandomizationRecord) -> str:
    """A metric as the page calls it, with parameters where it has a namesake."""
    namesakes = sum(other.name == metric.name for other in record.metrics)
    settings = metric.key.removeprefix(metric.name).replace("_", " ")
    return title(metric.name) + settings * (namesakes > 1)


def _similarity_panel(map: MapRandomized, frame: Frame, record: RandomizationRecord) -> PlotPanel:
    tables = {name: similarities(map, name) for name in MEASURES if map.similarity.get(name)}
    curves, bands, last = list[Curve](), list[tuple[str, str]](), list[str]()
    for name, table in tables.items():
        line, band = _line(table, name, frame)
        chance = mean(np.array([v for v in map.chance.get(name, []) if v is not None]))
        ends = (np.array([0.93, 1.0]) * frame.right, np.array([chance, chance]))
        curves += [line, *[Curve(f"{name} chance", frame.line(ends))] * math.isfinite(chance)]
        bands += band
        last.append(f"{MEASURES[name]} {fixed(mean(table[:, -1]))}")
    alt = f"{label(map.method)} after the last step: {', '.join(last)}."
    heading, ticks = label(map.method), _ticks(frame, record)
    return PlotPanel(heading, tuple(curves), tuple(bands), ticks, frame.levels(), alt)


def _score_panel(
    metric: MetricFollowed, record: RandomizationRecord, kinds: dict[str, str]
) -> PlotPanel | None:
    tables = {map.method: scores_along(map, metric.key) for map in record.maps}
    known = {name: table for name, table in tables.items() if np.isfinite(table).any()}
    if not known:
        return None
    limit = _limit(metric, list(known.values()))
    frame = _around([table.clip(-limit, limit) for table in known.values()], record)
    curves, bands = list[Curve](), list[tuple[str, str]]()
    for name, table in reversed(known.items()):  # controls at the back
        line, band = _line(table, kinds[name], frame)
        curves.append(line)
        bands += band
    better = ARROWS[metric.direction][1]
    cut = f"cut at ±{number(limit)}" if math.isfinite(limit) else ""
    heading, ticks = metric_heading(metric, record), _ticks(frame, record)
    remark = ", ".join(part for part in (better, metric.unit, cut) if part)
    alt = f"{heading}, {remark}: {_in_words(tables)}."
    return PlotPanel(heading, tuple(curves), tuple(bands), ticks, frame.levels(), alt, remark)


def _line(table: Array, kind: str, frame: Frame) -> tuple[Curve, list[tuple[str, str]]]:
    """The mean over the seeds, and the band that holds them all."""
    steps = np.arange(table.shape[1], dtype=np.float64)
    line = Curve(kind, frame.line((steps, middles(table))))
    return line, [(kind, frame.band(steps, *bounds(table)))] if len(table) > 1 else []


def _limit(metric: MetricFollowed, tables: list[Array]) -> float:
    """Where curves are cut that would leave nothing to be seen of the trained network's."""
    if None not in (metric.minimum, metric.maximum):
        return math.inf
    trained = max(float(np.nanmax(np.abs(table[:, 0]), initial=0.0)) for table in tables)
    largest = max(float(np.nanmax(np.abs(table))) for table in tables)
    return FAR * trained if 0 < 2 * FAR * trained < largest else math.inf


def _around(tables: list[Array], record: RandomizationRecord) -> Frame:
    """Holds all curves, and zero where that leaves them most of the height."""
    values = np.concatenate([table.ravel() for table in tables])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if 0 < low <= high / 2 or 0 > high >= low / 2:
        values = np.append(values, 0.0)
    steps = np.linspace(0.0, _last(record), len(values))
    return Frame.around([(steps, values)])


def _ticks(frame: Frame, record: RandomizationRecord) -> tuple[tuple[float, str, str], ...]:
    first, last = ends_of(record)
    return ((frame.x(0), first, "start"), (frame.x(frame.right), last, "end"))


def _in_words(tables: dict[str, Array]) -> str:
    found = []
    for name, table in tables.items():
        if np.isfinite(table).any():
            ends = (mean(table[:, 0]), mean(table[:, -1]))
            first, last = (fixed(end, decimals(ends)) for end in ends)
            found.append(f"{label(name)} from {first} to {last}")
    return "; ".join(found)


def _kinds(record: RandomizationRecord) -> dict[str, str]:
    """What the style sheet draws for a map; a control is drawn as elsewhere."""
    maps = [map.method for map in record.maps if not map.control]
    kinds = {name: f"m{n % HUES}" + " again" * (n >= HUES) for n, name in enumerate(maps)}
    return {map.method: kinds.get(map.method, map.method) for map in record.maps}


def _last(record: RandomizationRecord) -> float:
    return float(max(len(record.stages) - 1, 1))
