"""What ``voxplain metrics`` shows, and how scores are printed."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

from rich.text import Text

from voxplain.cli.console import out, remark, table
from voxplain.cli.declared import show
from voxplain.metrics import BaseMetric, metric_key, parse_metric
from voxplain.metrics import metrics as registry
from voxplain.metrics.card import (
    BETTER,
    FAMILIES,
    in_order,
    metric_card,
    parameters_of,
    range_in_words,
)
from voxplain.records.scores import Score, Scores

_COLUMNS = ("metric", "", "what it tells", "cost per image")
NETWORK = "(network)"
"""What scores are of that are of no map."""
_ARROWS = {"up": "↑", "down": "↓", "none": ""}


def list_metrics() -> None:
    """Every metric, chapter by chapter."""
    rows: list[tuple[str | Text, ...]] = []
    for family, members in in_order([registry.get(name) for name in registry]).items():
        rows += [("",) * len(_COLUMNS)] * bool(rows)
        title = Text(family.capitalize(), "bold cyan")
        rows.append((title, "", Text(FAMILIES.get(family, ""), "dim"), ""))
        rows += [_row(kind) for kind in members]
    out.print(table(_COLUMNS, rows))
    out.print()
    out.print(
        "↑ higher is better, ↓ lower. Cost with defaults, in forwards; explanations are those of "
        "all methods. voxplain metrics NAME shows range, chance level and parameters",
        style="dim",
    )


def describe(name: str) -> None:
    """One metric: meaning, direction, range, chance level, cost, parameters.

    Raises:
        ConfigError: With the nearest names, if there is none.
    """
    kind = registry.get(name)
    facts = (
        ("better", BETTER[kind.direction]),
        ("range", range_in_words(kind)),
        ("chance", kind.chance),
        ("paper", kind.reference),
        ("cost", metric_card(kind).cost),
    )
    show(kind, kind.family, facts, parameters_of(kind))


def show_scores(scores: Scores) -> None:
    """A table per network and target, and below each why some scores are undefined."""
    parts: dict[tuple[str, str], list[Score]] = {}
    for row in _told_apart(scores):
        parts.setdefault((row.model, row.target), []).append(row)
    for (model, target), part in parts.items():
        if len(parts) > 1:
            out.print(f"\n{model} · target {target}", markup=False, highlight=False)
        _show_means(Scores(tuple(part)))


def _told_apart(scores: Scores) -> list[Score]:
    """The rows; metrics that were asked in several ways are named with their parameters."""
    ways: dict[str, set[str]] = {}
    for row in scores:
        ways.setdefault(row.metric, set()).add(repr(row.parameters))
    return [
        replace(row, metric=metric_key(parse_metric({"name": row.metric, **row.parameters})))
        if len(ways[row.metric]) > 1
        else row
        for row in scores
    ]


def _show_means(scores: Scores) -> None:
    """Means over images, the longer list downwards."""
    maps = list(dict.fromkeys(row.method for row in scores if not row.control))
    controls = list(dict.fromkeys(row.method for row in scores if row.control))
    asked = {row.metric: f"{row.metric} {_ARROWS[row.direction]}".strip() for row in scores}
    cells: dict[tuple[str, str], str | Text] = {}
    for metric in asked:
        part = scores.of(metric=metric)
        cells |= {(metric, name): _mean(part.of(method=name)) for name in maps}
        cells |= {(metric, name): Text(_mean(part.of(method=name)), "dim") for name in controls}
    cells = {(metric, name or NETWORK): value for (metric, name), value in cells.items()}
    names = [name or NETWORK for name in (*maps, *controls)]
    rows: list[tuple[str | Text, ...]]
    if len(names) > len(asked):
        columns = ("map", *asked.values())
        rows = [(name, *(cells[metric, name] for metric in asked)) for name in names]
    else:
        columns = ("metric", *names)
        rows = [(asked[each], *(cells[each, name] for name in names)) for each in asked]
    shown = table(columns, rows, right=columns[1:])
    shown.columns[0].no_wrap = True
    out.print(shown)
    missing = Counter((row.metric, row.reason) for row in scores if row.reason and not row.control)
    for (metric, reason), count in missing.items():
        scored = len(scores.of(metric=metric, control=False))
        share = f" ({count} of {scored} scores)" if count < scored else ""
        remark(f"{metric}: {reason}{share}")


def _row(kind: type[BaseMetric]) -> tuple[str | Text, ...]:
    arrow = _ARROWS[kind.direction]
    return f"  {kind.title()}", arrow, kind.meaning(), metric_card(kind).cost


def _mean(scores: Scores) -> str:
    if not scores.rows:
        return ""
    known = [value for value in scores.values() if math.isfinite(value)]
    return f"{sum(known) / len(known):.3g}" if known else "-"
