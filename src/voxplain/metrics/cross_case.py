"""Metrics that compare cases: each image gives a summary, and the table is completed from all."""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from voxplain.errors import ConfigError
from voxplain.metrics.metric import BaseMetric, Value, parse_metric
from voxplain.records.scores import Score, Scores

SUMMARY = "sketch"
"""The fact under which the table of scores keeps the summary of a case."""

ALONE = "this needs cases of other patients, and there are none"


@dataclass(frozen=True)
class CaseSummary:
    """What is kept of one case to compare it with others.

    Attributes:
        patient: Whose image it is; images of one patient are not compared with each other.
        summary: What the metric gave to :func:`to_compare`, after a round trip through JSON.
    """

    patient: str
    summary: Mapping[str, Any]


class CrossCaseMetric(BaseMetric):
    """A metric whose value for one case depends on the other cases.

    Images are scored one by one, some of them in earlier runs. So the ``score`` of a case returns
    a small summary, ``to_compare(summary)``, and no number; :func:`completed` fills in the numbers
    once the table is complete. Subclasses derive from :class:`~voxplain.metrics.Metric` or
    :class:`~voxplain.metrics.NetworkMetric` as well.
    """

    @abstractmethod
    def compare(self, cases: Sequence[CaseSummary]) -> list[Value]:
        """The value of every case, in order; NaN with a reason where there is none.

        Args:
            cases: Of two patients or more, explained by one method for one target of one network.
        """


def to_compare(summary: Mapping[str, Any]) -> Value:
    """A value that :func:`completed` replaces once other cases are there.

    Args:
        summary: What other cases need to know of this one, as JSON, whatever the size of the
            image.
    """
    return Value(math.nan, facts={SUMMARY: summary}, reason=ALONE)


def completed(scores: Scores) -> Scores:
    """The table with the values of cross-case metrics, from the summaries of the cases in it.

    A table can be completed again when cases have been added. Other rows stay as they are, and so
    do those of metrics that are not installed.
    """
    rows = list(scores)
    groups: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        if SUMMARY in row.facts:
            groups.setdefault(_compared_with(row), []).append(number)
    for numbers in groups.values():
        compared = _compared([rows[number] for number in numbers])
        for number, row in zip(numbers, compared, strict=True):
            rows[number] = row
    return Scores(tuple(rows))


def _compared_with(row: Score) -> str:
    """What all rows that are compared with each other have in common."""
    common = (row.model, row.target, row.method, row.control, row.metric, row.parameters, row.seed)
    return json.dumps(common, sort_keys=True)


def _compared(rows: Sequence[Score]) -> list[Score]:
    """Rows that are compared with each other, with their values."""
    metric = _metric(rows[0])
    if metric is None:
        return list(rows)
    if len({row.whose for row in rows}) < 2:
        values = [Value(math.nan, reason=ALONE)] * len(rows)
    else:
        values = metric.compare([CaseSummary(row.whose, row.facts[SUMMARY]) for row in rows])
    return [_completed_row(row, value) for row, value in zip(rows, values, strict=True)]


def _metric(row: Score) -> CrossCaseMetric | None:
    """The metric of a row; None where it is not installed, or its parameters have changed."""
    try:
        metric = parse_metric({**row.parameters, "name": row.metric})
    except ConfigError:
        return None
    return metric if isinstance(metric, CrossCaseMetric) else None


def _completed_row(row: Score, value: Value) -> Score:
    facts = {**value.facts, SUMMARY: row.facts[SUMMARY]}
    return replace(row, value=value.value, reason=value.reason, facts=facts, curve=value.curve)
