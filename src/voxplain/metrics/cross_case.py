"""Metrics that compare cases: each image leaves a sketch, and the table is concluded from all."""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from voxplain.errors import ConfigError
from voxplain.metrics.context import MetricContext
from voxplain.metrics.map_field import MapField
from voxplain.metrics.metric import Metric, Value, parse_metric
from voxplain.records.scores import Score, Scores

SUMMARY = "sketch"
"""The fact under which a case keeps what other cases are compared with."""

ALONE = "this needs cases of other patients, and there are none"


@dataclass(frozen=True)
class CaseSummary:
    """What a case has left.

    Attributes:
        patient: Whose image it is; images of one patient are no evidence for each other.
        sketch: As :meth:`CrossCaseMetric.sketch` gave it; it has been JSON since.
    """

    patient: str
    sketch: Mapping[str, Any]


class CrossCaseMetric(Metric):
    """A metric whose value for one case depends on the other cases.

    Images are judged one by one, and some of them long ago. So a case leaves a small sketch beside
    a value that is not there yet, and :func:`completed` fills it in once the table is together.
    """

    def score(self, field: MapField, context: MetricContext) -> Value:
        """No number yet, and the sketch in the facts."""
        return Value(math.nan, facts={SUMMARY: self.sketch(field, context)}, reason=ALONE)

    @abstractmethod
    def sketch(self, field: MapField, context: MetricContext) -> dict[str, Any]:
        """What other cases need to know of this one, as JSON, whatever the size of the image.

        Raises:
            Undefined: If the map or the prediction says nothing.
        """

    @abstractmethod
    def conclude(self, cases: Sequence[CaseSummary]) -> list[Value]:
        """The value of every case, in order; NaN with a reason where there is none.

        Args:
            cases: Of two patients or more, explained by one method for one target of one network.
        """


def completed(scores: Scores) -> Scores:
    """The table with the values of metrics over cases filled in from the cases it holds.

    It can be concluded again when cases have been added. Other rows stay as they are, and so do
    those of metrics that are not installed.
    """
    rows = list(scores)
    places: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        if SUMMARY in row.facts:
            places.setdefault(_compared_with(row), []).append(place)
    for together in places.values():
        found = _conclusion([rows[place] for place in together])
        for place, row in zip(together, found, strict=True):
            rows[place] = row
    return Scores(tuple(rows))


def _compared_with(row: Score) -> str:
    """What rows have in common that are compared."""
    asked = (row.model, row.target, row.method, row.control, row.metric, row.parameters, row.seed)
    return json.dumps(asked, sort_keys=True)


def _conclusion(rows: Sequence[Score]) -> list[Score]:
    """Rows that are compared with each other, with their values."""
    metric = _metric(rows[0])
    if metric is None:
        return list(rows)
    if len({row.whose for row in rows}) < 2:
        found = [Value(math.nan, reason=ALONE)] * len(rows)
    else:
        found = metric.conclude([CaseSummary(row.whose, row.facts[SUMMARY]) for row in rows])
    return [_filled(row, value) for row, value in zip(rows, found, strict=True)]


def _metric(row: Score) -> CrossCaseMetric | None:
    """The metric of a row; None where it is not installed, or has other parameters by now."""
    try:
        metric = parse_metric({**row.parameters, "name": row.metric})
    except ConfigError:
        return None
    return metric if isinstance(metric, CrossCaseMetric) else None


def _filled(row: Score, value: Value) -> Score:
    facts = {**value.facts, SUMMARY: row.facts[SUMMARY]}
    return replace(row, value=value.value, reason=value.reason, facts=facts, curve=value.curve)
