"""What a run keeps of cascading randomization: curves as JSON, small pictures beside them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from voxplain.records.atomic import atomic_write
from voxplain.records.names import safe
from voxplain.records.record import Record

Array = NDArray[Any]
FOLDER = "randomization"
MEASURES = ("spearman", "spearman_absolute", "ssim", "hog")


class MetricFollowed(Record):
    """A metric that judged the maps at every step.

    Attributes:
        key: Its name and the parameters that differ from their defaults; scores stand under it.
        name: In the registry.
        direction: Whether higher or lower is better, or neither.
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
    """What became of one map.

    Attributes:
        method: The key of the map, or the name of a control.
        sign: Of the map.
        control: Whether it is a control, which never asks the network.
        similarity: By measure, per seed, at every step; None where undefined.
        chance: By measure, between the maps of independently randomized networks.
        scores: By the key of a metric, per seed, at every step: the map of that step's network,
            judged by asking that network; None where undefined.
    """

    method: str
    sign: Literal["signed", "absolute", "positive"] = "signed"
    control: bool = False
    similarity: dict[str, list[list[float | None]]]
    chance: dict[str, list[float | None]] = {}
    scores: dict[str, list[list[float | None]]] = {}


class RandomizationRecord(Record):
    """One cascade of one image.

    Attributes:
        order: Which stages lose their training first.
        stages: The layers that each step randomizes; the first step is the trained network (none).
        maps: One entry per map.
        metrics: Those that judged the maps at every step; none in files of version 1.
        aspect: Height of a picture's pixels relative to their width.
        pictures: The name of the file with the pictures, in the same folder; None without.
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
        pictures: Per map ``(steps, rows, columns)`` as it hangs on the page, signed; and under
            ``image`` the plane of the image ``(rows, columns)`` in 0 to 1.

    Returns:
        The JSON file.
    """
    parts = (record.case, record.model, record.target, record.order)
    stem = "_".join(safe(part) for part in parts)
    folder = Path(run) / FOLDER
    if pictures:
        buffer = io.BytesIO()
        halves: dict[str, Any] = {name: _half(array) for name, array in pictures.items()}
        np.savez_compressed(buffer, **halves)
        atomic_write(folder / f"{stem}.npz", buffer.getvalue())
        record = record.model_copy(update={"pictures": f"{stem}.npz"})
    return atomic_write(folder / f"{stem}.json", record.model_dump_json(indent=1))


def read_randomizations(run: Path) -> list[RandomizationRecord]:
    """Every cascade of a run, by file name."""
    files = sorted((Path(run) / FOLDER).glob("*.json"))
    texts = (file.read_text(encoding="utf-8") for file in files)
    return [RandomizationRecord.model_validate_json(text) for text in texts]


def read_pictures(run: Path, record: RandomizationRecord) -> dict[str, Array]:
    """The pictures of a cascade by map, and its ``image``; empty without.

    Raises:
        OSError: If the file is missing or damaged.
    """
    if record.pictures is None:
        return {}
    with np.load(Path(run) / FOLDER / Path(record.pictures).name) as found:
        return {name: found[name].astype(np.float32) for name in found.files}


def similarities(part: MapRandomized, measure: str) -> NDArray[np.float64]:
    """The similarities ``(seeds, steps)`` of a map, NaN where undefined."""
    return _table(part.similarity.get(measure, []))


def scores_along(part: MapRandomized, key: str) -> NDArray[np.float64]:
    """What a metric said of a map ``(seeds, steps)``, NaN where undefined."""
    return _table(part.scores.get(key, []))


def _table(rows: list[list[float | None]]) -> NDArray[np.float64]:
    return np.array([[np.nan if v is None else v for v in row] for row in rows], dtype=np.float64)


def _half(array: Array) -> NDArray[np.float16]:
    """Relative to its largest magnitude: a picture needs no more."""
    values = np.nan_to_num(np.asarray(array, dtype=np.float64))
    largest = float(np.abs(values).max(initial=0.0))
    return (values / largest if largest > 0 else values).astype(np.float16)
