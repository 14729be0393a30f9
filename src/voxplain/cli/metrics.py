"""What ``voxplain metrics`` prints, and how scores are printed."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

from rich.text import Text

from voxplain.cli.console import describe, out, remark, table
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

NETWORK = "(network)"
"""Stands in place of a map in scores that are about the network itself."""

_COLUMNS = ("metric", "", "what it measures", "cost per image")
_ARROWS = {"up": "↑", "down": "↓", "none": ""}


def list_metrics() -> None:
    """Prints every metric, family by family, with its meaning and its cost."""
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


def describe_metric(name: str) -> None:
    """Prints one metric: meaning, direction, range, chance level, cost, parameters.

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
    parameters = [
        (parameter.name, parameter.kind, parameter.default, parameter.meaning)
        for parameter in parameters_of(kind)
    ]
    describe(kind.title(), kind.family, kind.meaning(), kind.details(), facts, parameters)


def show_scores(scores: Scores) -> None:
    """Prints a table per network and target, and below each why some scores are undefined."""
    groups: dict[tuple[str, str], list[Score]] = {}
    for row in _with_parameters(scores):
        groups.setdefault((row.model, row.target), []).append(row)
    for (model, target), rows in groups.items():
        if len(groups) > 1:
            out.print(f"\n{model} · target {target}", markup=False, highlight=False)
        _show_means(Scores(tuple(rows)))
        _show_undefined(Scores(tuple(rows)))


def _with_parameters(scores: Scores) -> list[Score]:
    """The rows; a metric with several settings is named with its parameters."""
    settings: dict[str, set[str]] = {}
    for row in scores:
        settings.setdefault(row.metric, set()).add(repr(row.parameters))
    return [
        replace(row, metric=metric_key(parse_metric({"name": row.metric, **row.parameters})))
        if len(settings[row.metric]) > 1
        else row
        for row in scores
    ]


def _show_means(scores: Scores) -> None:
    """Prints the means over images, with the longer of maps and metrics as rows."""
    maps = list(dict.fromkeys(row.method for row in scores if not row.control))
    controls = list(dict.fromkeys(row.method for row in scores if row.control))
    titles = {row.metric: f"{row.metric} {_ARROWS[row.direction]}".strip() for row in scores}
    cells: dict[tuple[str, str], str | Text] = {}
    for metric in titles:
        of_metric = scores.of(metric=metric)
        for name in maps:
            cells[metric, name or NETWORK] = _mean(of_metric.of(method=name))
        for name in controls:
            cells[metric, name or NETWORK] = Text(_mean(of_metric.of(method=name)), "dim")
    names = [name or NETWORK for name in (*maps, *controls)]
    rows: list[tuple[str | Text, ...]]
    if len(names) > len(titles):
        columns = ("map", *titles.values())
        rows = [(name, *(cells[metric, name] for metric in titles)) for name in names]
    else:
        columns = ("metric", *names)
        rows = [(titles[metric], *(cells[metric, name] for name in names)) for metric in titles]
    means = table(columns, rows, right=columns[1:])
    means.columns[0].no_wrap = True
    out.print(means)


def _show_undefined(scores: Scores) -> None:
    """Prints why maps have no score, and how often."""
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
    finite = [value for value in scores.values() if math.isfinite(value)]
    return f"{sum(finite) / len(finite):.3g}" if finite else "-"
