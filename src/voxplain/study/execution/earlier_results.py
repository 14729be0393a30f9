"""Results of an earlier run in the same folder that are still right."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from voxplain.records.atomic import atomic_write
from voxplain.records.manifest import (
    AnalysisRecord,
    CaseRecord,
    Manifest,
    MapRecord,
    PredictionRecord,
    TaskRecord,
)
from voxplain.records.scores import Score, Scores
from voxplain.study.execution.store import Store
from voxplain.study.planning.analysis_task import AnalysisTask, AnyTask
from voxplain.study.planning.tasks import Combination, Task

SCORE_CACHES = ".scores"
"""Folder of a run directory that holds the finished scores of each combination."""

_Key = tuple[str, str]  # of a model and of what determines a result


class EarlierResults:
    """Finds results by the network they are of and the hash of everything that determines them.

    Args:
        manifest: Of the earlier run; None if nothing may be reused.
        store: The run directory.

    Attributes:
        seals: Of the files of the earlier run.
    """

    def __init__(self, manifest: Manifest | None, store: Store) -> None:
        self._store = store
        self.seals = dict(manifest.seals) if manifest else {}
        self._cases: dict[str, CaseRecord] = {}
        self._predictions: dict[_Key, PredictionRecord] = {}
        self._tasks: dict[_Key, TaskRecord] = {}
        self._maps: dict[_Key, list[MapRecord]] = {}
        self._analyses: dict[_Key, AnalysisRecord] = {}
        if manifest is not None:
            self._index(manifest)

    def has_case(self, record: CaseRecord) -> bool:
        """Whether the copies of image and reference are whole, and of the same voxels."""
        earlier = self._cases.get(record.id)
        return (
            earlier is not None
            and earlier.image_sha256 == record.image_sha256
            and earlier.reference == record.reference
            and earlier.reference_sha256 == record.reference_sha256
            and self._is_whole(record.image, record.reference)
        )

    def prediction(self, combination: Combination) -> PredictionRecord | None:
        """The prediction of a combination, if its file is whole."""
        record = self._predictions.get((combination.model, combination.key))
        return record if record is not None and self._is_whole(record.image) else None

    def failed_prediction(self, combination: Combination) -> TaskRecord | None:
        """The record of the task that failed to make the prediction of a combination."""
        record = self._tasks.get((combination.model, combination.key))
        return record if record is not None and record.kind == "prediction" else None

    def maps(self, task: Task) -> list[MapRecord]:
        """The maps of those methods of a task whose files are all there and whole."""
        model = task.combination.model
        groups = [self._maps.get((model, key), []) for key in task.methods]
        return [record for records in groups if self._complete(records) for record in records]

    def analysis(self, task: AnalysisTask) -> AnalysisRecord | None:
        """The record of an analysis, if all of its files are there and whole."""
        record = self._analyses.get((task.model, task.key))
        if record is None:
            return None
        files = [file for file in self.seals if file.startswith(f"{record.folder}/")]
        return record if files and self._is_whole(*files) else None

    def task(self, task: AnyTask) -> TaskRecord | None:
        """The record of a task, if it was done as it stands now."""
        record = self._tasks.get((task.place[1], task.key))
        return record if record is not None and record.status == "done" else None

    def failed(self, task: AnyTask) -> TaskRecord | None:
        """The record of a task, if it failed as it stands now."""
        record = self._tasks.get((task.place[1], task.key))
        return record if record is not None and record.status == "failed" else None

    def _is_whole(self, *files: str | None) -> bool:
        return self._store.is_whole(self.seals, *files)

    def _index(self, manifest: Manifest) -> None:
        self._cases = {record.id: record for record in manifest.cases}
        self._predictions = {(record.model, record.key): record for record in manifest.predictions}
        self._tasks = {(record.model, record.key): record for record in manifest.tasks}
        self._analyses = {(record.model, record.key): record for record in manifest.analyses}
        for record in manifest.maps:
            self._maps.setdefault((record.model, record.key), []).append(record)

    def _complete(self, records: list[MapRecord]) -> bool:
        return all(self._is_whole(record.file, record.sidecar) for record in records)


def score_cache_file(run: Path, key: str) -> Path:
    """Where the finished scores of a combination are kept, by its key."""
    return run / SCORE_CACHES / f"{key[:32]}.json"


class ScoreCache:
    """The finished scores of one combination, each under the hash of what determines it.

    Args:
        run: The run directory.
        key: Of the combination.
        resume: Whether to start with what an earlier run has left.
    """

    def __init__(self, run: Path, key: str, resume: bool = True) -> None:
        self._file = score_cache_file(run, key)
        self._rows: dict[str, dict[str, Any]] = {}
        self._marks: dict[str, str] = {}
        if resume:
            self._read()

    def get(self, key: str) -> Score | None:
        """The score under a key, if it is finished."""
        record = self._rows.get(key)
        return None if record is None else Scores.of_records([record]).rows[0]

    def add(self, rows: Mapping[str, Score]) -> None:
        """Adds scores; the file is replaced as a whole."""
        records = Scores(tuple(rows.values())).to_records()
        self._rows.update(zip(rows, records, strict=True))
        self._write()

    def mark(self, name: str, key: str) -> None:
        """Notes under a name that everything is finished which this hash determines."""
        self._marks[name] = key
        self._write()

    def is_marked(self, name: str, key: str) -> bool:
        """Whether that was noted with the same hash."""
        return self._marks.get(name) == key

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            content = json.loads(self._file.read_text(encoding="utf-8"))
            self._rows, self._marks = dict(content["rows"]), dict(content["marks"])

    def _write(self) -> None:
        atomic_write(self._file, json.dumps({"rows": self._rows, "marks": self._marks}))
