"""Records of cascading randomization: curves as JSON, small pictures beside them, one table."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from voxplain.records.atomic import atomic_write
from voxplain.records.names import safe
from voxplain.records.record import Record

Array = NDArray[Any]
FOLDER = "randomization"
TABLE = f"{FOLDER}/steps.parquet"
MEASURES = ("spearman", "spearman_absolute", "ssim", "hog")


class MetricFollowed(Record):
    """A metric that was evaluated on the maps of every step.

    Attributes:
        key: Name and the parameters that differ from their defaults; the key of its scores.
        name: Name in the registry.
        direction: Whether higher (``up``) or lower (``down``) is better, or neither.
        minimum: Smallest possible value, None where unbounded.
        maximum: Largest possible value.
        unit: Empty for pure numbers.
        meaning: One line in plain words.
    """

    key: str
    name: str
    direction: Literal["up", "down", "none"]
    minimum: float | None = None
    maximum: float | None = None
    unit: str = ""
    meaning: str = ""


class MapRandomized(Record):
    """The maps of one method, or of one control, along a cascade.

    Attributes:
        method: The key of the map, or the name of a control.
        sign: Sign of the map's values.
        control: Whether it is a control, which does not use the network.
        similarity: Similarity with the map of the trained network by measure, ``[seed][step]``;
            None where undefined.
        chance: Similarity by measure between maps of independently randomized networks.
        scores: Score by key of the metric, ``[seed][step]``: of the map of that step's network,
            evaluated with that network; None where undefined.
    """

    method: str
    sign: Literal["signed", "absolute", "positive"] = "signed"
    control: bool = False
    similarity: dict[str, list[list[float | None]]]
    chance: dict[str, list[float | None]] = {}
    scores: dict[str, list[list[float | None]]] = {}


class RandomizationRecord(Record):
    """One cascade of randomizations of one network, for one image.

    Attributes:
        order: Which stages are randomized first.
        stages: Layers that each step randomizes; none in the first one, the trained network.
        maps: One entry per method or control.
        metrics: Metrics that were evaluated at every step; none in files of version 1.
        aspect: Height of a picture's pixels relative to their width.
        pictures: Name of the file with the pictures, in the same folder; None without pictures.
    """

    schema_version: int = 2
    case: str
    model: str
    target: str
    order: Literal["top_down", "bottom_up", "independent"]
    stages: list[list[str]]
    maps: list[MapRandomized]
    metrics: list[MetricFollowed] = []
    aspect: float = 1.0
    pictures: str | None = None


def write_randomization(
    run: Path, record: RandomizationRecord, pictures: Mapping[str, Array] | None = None
) -> Path:
    """Writes ``randomization/<case>_<model>_<target>_<order>.json``, and pictures as ``.npz``.

    Args:
        run: The run directory.
        record: The curves.
        pictures: Per map a signed plane at every step, ``(steps, rows, columns)`` as displayed;
            under ``image`` the plane of the image, ``(rows, columns)`` in 0 to 1.

    Returns:
        The JSON file.
    """
    stem, folder = _stem(record), Path(run) / FOLDER
    if pictures:
        buffer = io.BytesIO()
        halves: dict[str, Any] = {name: _half(array) for name, array in pictures.items()}
        np.savez_compressed(buffer, **halves)
        atomic_write(folder / f"{stem}.npz", buffer.getvalue())
        record = record.model_copy(update={"pictures": f"{stem}.npz"})
    return atomic_write(folder / f"{stem}.json", record.model_dump_json(indent=1))


def files_of(run: Path, record: RandomizationRecord) -> list[Path]:
    """The files of a cascade, whether they are there or not."""
    return [Path(run) / FOLDER / f"{_stem(record)}.{ending}" for ending in ("json", "npz")]


def _stem(record: RandomizationRecord) -> str:
    return "_".join(map(safe, (record.case, record.model, record.target, record.order)))


def read_randomizations(run: Path) -> list[RandomizationRecord]:
    """All cascades of a run, sorted by file name."""
    files = sorted((Path(run) / FOLDER).glob("*.json"))
    texts = (file.read_text(encoding="utf-8") for file in files)
    return [RandomizationRecord.model_validate_json(text) for text in texts]


def read_pictures(run: Path, record: RandomizationRecord) -> dict[str, Array]:
    """The pictures of a cascade by map, and its ``image``; empty where none were written.

    Raises:
        OSError: If the file is missing or damaged.
    """
    if record.pictures is None:
        return {}
    with np.load(Path(run) / FOLDER / Path(record.pictures).name) as arrays:
        return {name: arrays[name].astype(np.float32) for name in arrays.files}


def similarities(cascade: MapRandomized, measure: str) -> NDArray[np.float64]:
    """Similarities with the map of the trained network, ``(seeds, steps)``; NaN if undefined."""
    return _table(cascade.similarity.get(measure, []))


def scores_along(cascade: MapRandomized, key: str) -> NDArray[np.float64]:
    """Scores of a map by one metric, ``(seeds, steps)``; NaN if undefined."""
    return _table(cascade.scores.get(key, []))


def _table(rows: list[list[float | None]]) -> NDArray[np.float64]:
    return np.array([[np.nan if v is None else v for v in row] for row in rows], dtype=np.float64)


def _half(array: Array) -> NDArray[np.float16]:
    """Values relative to the largest magnitude, in the half precision that a picture needs."""
    values = np.nan_to_num(np.asarray(array, dtype=np.float64))
    largest = float(np.abs(values).max(initial=0.0))
    return (values / largest if largest > 0 else values).astype(np.float16)


def write_steps(run: Path) -> Path | None:
    """Writes ``randomization/steps.parquet`` from the cascades of a run, a row per value.

    Two lines plot it::

        steps = pandas.read_parquet("randomization/steps.parquet").query("measure == 'spearman'")
        steps.pivot_table(index="step", columns="method", values="value").plot()

    Columns: ``case``, ``model``, ``target``, ``method``, ``control``, ``order``, ``seed``, ``step``
    (0 is the trained network), ``stages`` (what the step randomizes), ``kind`` (``similarity`` with
    the map of the trained network, or ``metric``), ``measure`` (its name), ``value`` (null where
    undefined), ``direction`` and ``unit``.

    Args:
        run: The run directory.

    Returns:
        The table; None if the run holds no cascade.
    """
    import pyarrow
    from pyarrow import parquet

    records = list(_readable(run))
    if not records:
        (run / TABLE).unlink(missing_ok=True)
        return None
    schema = _schema()
    buffer = pyarrow.BufferOutputStream()
    with parquet.ParquetWriter(buffer, schema) as writer:
        for record in records:
            writer.write_table(pyarrow.Table.from_pylist(list(step_rows(record)), schema))
    return atomic_write(run / TABLE, buffer.getvalue().to_pybytes())


def step_rows(record: RandomizationRecord) -> Iterator[dict[str, Any]]:
    """The rows of one cascade, similarities before metrics."""
    for cascade in record.maps:
        for measure, curves in cascade.similarity.items():
            # Lower is better, as in the metrics that read these curves.
            facts = {"kind": "similarity", "measure": measure, "direction": "down", "unit": ""}
            yield from _rows(record, cascade, curves, facts)
        for metric in record.metrics:
            facts = {"kind": "metric", "measure": metric.key}
            facts |= {"direction": metric.direction, "unit": metric.unit}
            yield from _rows(record, cascade, cascade.scores.get(metric.key, []), facts)


def _rows(
    record: RandomizationRecord,
    cascade: MapRandomized,
    curves: list[list[float | None]],
    facts: dict[str, str],
) -> Iterator[dict[str, Any]]:
    combination = {"case": record.case, "model": record.model, "target": record.target}
    source = {"method": cascade.method, "control": cascade.control, "order": record.order}
    for seed, curve in enumerate(curves):
        for step, value in enumerate(curve):
            place = {"seed": seed, "step": step, "stages": ", ".join(record.stages[step])}
            yield {**combination, **source, **place, **facts, "value": value}


def _readable(run: Path) -> Iterator[RandomizationRecord]:
    """The cascades that can be read; the report lists the others."""
    for file in sorted((run / FOLDER).glob("*.json")):
        with contextlib.suppress(OSError, ValueError):
            yield RandomizationRecord.model_validate_json(file.read_text(encoding="utf-8"))


def _schema() -> Any:
    import pyarrow

    text, integer = pyarrow.string(), pyarrow.int64()
    return pyarrow.schema(
        [
            *((name, text) for name in ("case", "model", "target", "method")),
            ("control", pyarrow.bool_()),
            ("order", text),
            ("seed", integer),
            ("step", integer),
            *((name, text) for name in ("stages", "kind", "measure")),
            ("value", pyarrow.float64()),
            ("direction", text),
            ("unit", text),
        ]
    )
