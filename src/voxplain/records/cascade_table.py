"""All cascades of a run as one tidy table: a row per map, seed, step and curve."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from voxplain.records.atomic import atomic_write
from voxplain.records.cascades import FOLDER, MapRandomized, RandomizationRecord

FILE = f"{FOLDER}/steps.parquet"


def write_steps(run: Path) -> Path | None:
    """Writes ``randomization/steps.parquet`` from the cascades that a run keeps.

    Two lines draw it::

        steps = pandas.read_parquet("randomization/steps.parquet").query("measure == 'spearman'")
        steps.pivot_table(index="step", columns="method", values="value").plot()

    Columns: ``case``, ``model``, ``target``, ``method``, ``control``, ``order``, ``seed``, ``step``
    (0 is the trained network), ``stages`` (what the step randomizes), ``kind`` (``similarity`` with
    the map of the trained network, or ``metric``), ``measure`` (its name), ``value`` (null where
    undefined), ``direction`` and ``unit``.

    Args:
        run: The run directory.

    Returns:
        The table; None where no cascade was kept.
    """
    import pyarrow
    from pyarrow import parquet

    records = list(_readable(run))
    if not records:
        (run / FILE).unlink(missing_ok=True)
        return None
    schema = _schema()
    buffer = pyarrow.BufferOutputStream()
    with parquet.ParquetWriter(buffer, schema) as writer:
        for record in records:
            writer.write_table(pyarrow.Table.from_pylist(list(step_rows(record)), schema))
    return atomic_write(run / FILE, buffer.getvalue().to_pybytes())


def step_rows(record: RandomizationRecord) -> Iterator[dict[str, Any]]:
    """The rows of one cascade, similarities before metrics."""
    for part in record.maps:
        for measure, curves in part.similarity.items():
            # Less alike is better, as in the metrics that read these curves.
            facts = {"kind": "similarity", "measure": measure, "direction": "down", "unit": ""}
            yield from _rows(record, part, curves, facts)
        for metric in record.metrics:
            facts = {"kind": "metric", "measure": metric.key}
            facts |= {"direction": metric.direction, "unit": metric.unit}
            yield from _rows(record, part, part.scores.get(metric.key, []), facts)


def _rows(
    record: RandomizationRecord,
    part: MapRandomized,
    curves: list[list[float | None]],
    facts: dict[str, str],
) -> Iterator[dict[str, Any]]:
    asked = {"case": record.case, "model": record.model, "target": record.target}
    shown = {"method": part.method, "control": part.control, "order": record.order}
    for seed, curve in enumerate(curves):
        for step, value in enumerate(curve):
            place = {"seed": seed, "step": step, "stages": ", ".join(record.stages[step])}
            yield {**asked, **shown, **place, **facts, "value": value}


def _readable(run: Path) -> Iterator[RandomizationRecord]:
    """Those that can be read; of the others the report speaks."""
    for file in sorted((run / FOLDER).glob("*.json")):
        with contextlib.suppress(OSError, ValueError):
            yield RandomizationRecord.model_validate_json(file.read_text(encoding="utf-8"))


def _schema() -> Any:
    import pyarrow

    text, whole = pyarrow.string(), pyarrow.int64()
    return pyarrow.schema(
        [
            *((name, text) for name in ("case", "model", "target", "method")),
            ("control", pyarrow.bool_()),
            ("order", text),
            ("seed", whole),
            ("step", whole),
            *((name, text) for name in ("stages", "kind", "measure")),
            ("value", pyarrow.float64()),
            ("direction", text),
            ("unit", text),
        ]
    )
