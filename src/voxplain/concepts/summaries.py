"""Summaries over cases as they are written."""

from __future__ import annotations

import math

from voxplain.records.uncertainty import SummaryRecord
from voxplain.statistics import Summary


def summary_record(summary: Summary) -> SummaryRecord:
    """A summary as it is written; NaN becomes None."""
    is_defined = math.isfinite(summary.mean)
    return SummaryRecord(
        mean=summary.mean if is_defined else None,
        median=summary.median if is_defined else None,
        quartiles=summary.quartiles if is_defined else None,
        interval=summary.interval,
        count=summary.count,
        undefined=summary.undefined,
        patients=summary.patients,
    )
