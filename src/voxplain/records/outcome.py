"""What came of one task, in a file of its own, and the manifest of a run put together from these.

Whoever does a task writes its outcome, in whatever process and on whatever machine, so that nothing
is lost when another process of the run ends, and no file grows with the number of tasks.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from voxplain.records.atomic import atomic_write
from voxplain.records.manifest import (
    AnalysisRecord,
    Manifest,
    MapRecord,
    PredictionRecord,
    TaskRecord,
)
from voxplain.records.names import safe
from voxplain.records.record import Record
from voxplain.records.scores import Scores

OUTCOMES = "tasks"
"""Folder of a run directory that holds the outcomes."""


class TaskOutcome(Record):
    """The record of a task, and of everything that it made.

    Attributes:
        task: Its record.
        predictions: Those it made.
        maps: Those it wrote.
        analyses: Those it made.
        scores: Those it computed, as the rows of a table.
        seals: Of the files it wrote; see :func:`seal`.
    """

    model_config = ConfigDict(ser_json_inf_nan="constants")

    task: TaskRecord
    predictions: list[PredictionRecord] = []
    maps: list[MapRecord] = []
    analyses: list[AnalysisRecord] = []
    scores: list[dict[str, Any]] = []
    seals: dict[str, str] = {}

    def write(self, run: Path) -> None:
        """Writes it into a run directory."""
        atomic_write(outcome_file(run, self.task), self.model_dump_json(exclude_defaults=True))


def outcome_file(run: Path, task: TaskRecord) -> Path:
    """Where the outcome of a task is written; its log has the same name and ends with ``.log``."""
    name = f"{safe(task.target)}_{task.kind}-{task.key[:16]}.json"
    return run / OUTCOMES / task.case / safe(task.model) / name


def prediction_task(key: str, case: str, model: str, target: str) -> TaskRecord:
    """The record of the task that makes a prediction.

    A manifest lists it only where it failed and no other task says why.
    """
    return TaskRecord(
        key=key, case=case, model=model, target=target, methods=["prediction"], kind="prediction"
    )


def read_outcome(run: Path, task: TaskRecord) -> TaskOutcome | None:
    """The outcome of a task; None if there is none, or none that can be read."""
    return _read(outcome_file(run, task))


def outcomes(run: Path) -> Iterator[tuple[Path, TaskOutcome]]:
    """Every outcome in a run directory with its file, in the order of their names."""
    for folder, folders, files in os.walk(run / OUTCOMES):
        folders.sort()
        for name in sorted(files):
            if name.endswith(".json") and (outcome := _read(Path(folder, name))) is not None:
                yield Path(folder, name), outcome


def read_manifest(run: Path) -> Manifest:
    """The manifest of a run as it stands now, also while it runs and after it was killed.

    Raises:
        FileNotFoundError: If there is no run.
        ValueError: If its manifest is damaged or of another version.
    """
    manifest = Manifest.read(run)
    tasks = {
        (task.kind, task.model, task.key): number for number, task in enumerate(manifest.tasks)
    }
    predicted = {(record.model, record.key) for record in manifest.predictions}
    written = {record.file for record in manifest.maps}
    for _, outcome in outcomes(run):
        number = tasks.get((outcome.task.kind, outcome.task.model, outcome.task.key))
        if number is None and outcome.task.kind != "prediction":
            continue
        if number is not None:
            manifest.tasks[number] = outcome.task
        manifest.maps += [record for record in outcome.maps if record.file not in written]
        new = [each for each in outcome.predictions if (each.model, each.key) not in predicted]
        manifest.predictions += new
        manifest.analyses = _replaced(manifest.analyses, outcome.analyses)
        manifest.seals.update(outcome.seals)
    return manifest


def _replaced(
    before: Sequence[AnalysisRecord], new: Sequence[AnalysisRecord]
) -> list[AnalysisRecord]:
    """Records of analyses, with new ones in place of those whose folder they took."""
    taken = {record.folder for record in new}
    return [*(record for record in before if record.folder not in taken), *new]


def scores_of(run: Path, tasks: Iterable[TaskRecord]) -> Scores:
    """The scores that evaluations have computed so far, in their order."""
    found = (read_outcome(run, task) for task in tasks)
    return Scores.joined(Scores.of_records(each.scores) for each in found if each is not None)


def seal(file: Path) -> str:
    """The size of a file and its last bytes, which hold the checksum of a compressed one.

    It tells a truncated or replaced file from the one that was written, without reading it.
    """
    with file.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - _TRAILER))
        return f"{size}-{stream.read().hex()}"


_TRAILER = 8


def _read(file: Path) -> TaskOutcome | None:
    with contextlib.suppress(OSError, ValueError):
        return TaskOutcome.model_validate_json(file.read_bytes())
    return None
