"""What an earlier run in the same folder has left that is still right."""

from __future__ import annotations

from collections.abc import Iterable

from voxplain.records.manifest import CaseRecord, Manifest, MapRecord, PredictionRecord, TaskRecord
from voxplain.study.execution.store import Store
from voxplain.study.planning.evaluation_task import EvaluationTask
from voxplain.study.planning.tasks import Combination, Task


class EarlierResults:
    """Looks results up by the hash of everything that determines them.

    Args:
        manifest: Of the earlier run; None if nothing may be reused.
        store: The run directory.
    """

    def __init__(self, manifest: Manifest | None, store: Store) -> None:
        self._store = store
        self._cases = {record.id: record for record in manifest.cases} if manifest else {}
        self._predictions = {r.key: r for r in manifest.predictions} if manifest else {}
        self._tasks = {record.key: record for record in manifest.tasks} if manifest else {}
        self._maps: dict[str, list[MapRecord]] = {}
        for record in manifest.maps if manifest else ():
            self._maps.setdefault(record.key, []).append(record)

    def has_case(self, record: CaseRecord) -> bool:
        """Whether the copy of the image is there and of the same voxels."""
        known = self._cases.get(record.id)
        return (
            known is not None
            and known.image_sha256 == record.image_sha256
            and known.reference == record.reference
            and self._store.has(record.image, record.reference)
        )

    def prediction(self, combination: Combination) -> PredictionRecord | None:
        """The prediction of this subject, if its files are there."""
        record = self._predictions.get(combination.key)
        return record if record is not None and self._store.has(record.image) else None

    def maps(self, keys: Iterable[str]) -> list[MapRecord]:
        """The maps of those methods whose files are all there."""
        complete = [self._maps[key] for key in keys if self._complete(key)]
        return [record for records in complete for record in records]

    def task(self, task: Task | EvaluationTask) -> TaskRecord | None:
        """What was recorded of a task, if it was done as it stands now."""
        record = self._tasks.get(task.key)
        return record if record is not None and record.status == "done" else None

    def _complete(self, key: str) -> bool:
        records = self._maps.get(key, [])
        return bool(records) and all(self._store.has(r.file, r.sidecar) for r in records)
