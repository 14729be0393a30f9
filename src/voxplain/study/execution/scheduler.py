"""A run in progress: which tasks are left, in which order, and what came of them."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence

from voxplain.attribution.result import software
from voxplain.errors import VoxplainWarning
from voxplain.io import read_mask
from voxplain.metrics.cross_case import completed
from voxplain.records.folder import sweep
from voxplain.records.manifest import (
    Manifest,
    MapRecord,
    ModelRecord,
    Status,
    TaskRecord,
)
from voxplain.records.scores import Scores
from voxplain.study.execution.earlier_results import EarlierResults, ScoreCache
from voxplain.study.execution.evaluator import finished_scores, maps_of
from voxplain.study.execution.events import EventLog
from voxplain.study.execution.execute import (
    EvaluationSpec,
    ExplanationSpec,
    PredictionSpec,
    TaskResult,
    TaskSpec,
)
from voxplain.study.execution.executors import Executor
from voxplain.study.execution.privacy import redactor_of
from voxplain.study.execution.progress import Listener
from voxplain.study.execution.resolved import resolved_text
from voxplain.study.execution.resources import CombinationSpec, LoadedResources
from voxplain.study.execution.store import EVENTS, MANIFEST, Store
from voxplain.study.planning.checked_study import CheckedStudy
from voxplain.study.planning.evaluation_task import EvaluationTask
from voxplain.study.planning.networks import device_name
from voxplain.study.planning.tasks import Combination, CombinationId, Task, TaskId


class Scheduler:
    """Carries out a checked study; nothing else writes manifest and events or calls the listener.

    The manifest lists every task from the start; each one changes from pending to done or failed,
    so that a run that was stopped at any moment can be resumed.

    Args:
        checked: What to do.
        store: The run directory.
        listener: Callbacks.
        resume: Keep the results of an earlier run that are still right.
        resources: Images and networks of this process, which copies the images.
    """

    def __init__(
        self,
        checked: CheckedStudy,
        store: Store,
        listener: Listener,
        resume: bool,
        resources: LoadedResources,
    ) -> None:
        self.checked, self.store, self.listener = checked, store, listener
        self.resume, self.resources = resume, resources
        self.private = redactor_of(checked)
        self.earlier = EarlierResults(store.earlier() if resume else None, store)
        self.start = time.monotonic()
        self.tasks: dict[TaskId, Task | EvaluationTask] = {
            **{task.id: task for task in checked.plan.tasks},
            **{task.id: task for task in checked.plan.evaluations},
        }
        self.records = {task.id: _record(task) for task in self.tasks.values()}
        self.scores: dict[TaskId, Scores] = {}
        self.map_keys: dict[CombinationId, set[str]] = defaultdict(set)
        self.has_new_maps = False
        self.manifest = self._new_manifest()
        store.folder.mkdir(parents=True, exist_ok=True)
        self.log = EventLog(store.folder / EVENTS, self.private)

    def run(self, executor: Executor) -> Manifest:
        """Does what an earlier run has not done; returns the manifest."""
        sweep(self.store.folder)
        study = resolved_text(self.checked, self.private)
        self.manifest.study_sha256 = hashlib.sha256(study.encode()).hexdigest()
        if not self.store.has(MANIFEST):
            self._save()  # first of all, so that a run which is killed can be taken up again
        self.store.write_study(study)
        self.store.write_description()
        self.listener.planned(self.checked.plan)
        self.log.add("started", tasks=len(self.tasks))
        self._adopt()
        for result in executor.run(self._specs()):
            self._receive(result)
        self._save()
        self._write_scores()
        left = len(self.manifest.pending)
        self.log.add("finished", failed=len(self.manifest.failed), pending=left)
        return self.manifest

    def _adopt(self) -> None:
        """Takes over what an earlier run has left."""
        for combination in self.checked.combinations:
            prediction = self.earlier.prediction(combination)
            self.manifest.predictions += [prediction] if prediction else []
        for task in self.checked.plan.tasks:
            self._add_maps(self.earlier.maps(task))
            if not self._missing(task).methods:
                self._settle(task.id, self.earlier.task(task) or _record(task, "done"), reused=True)
        for evaluation in self.checked.plan.evaluations:
            cache = ScoreCache(self.store.folder, evaluation.combination.key, self.resume)
            records = maps_of(self.manifest, evaluation.combination)
            scores = finished_scores(evaluation, records, cache)
            if scores is not None:
                self.scores[evaluation.id] = scores
                record = self.earlier.task(evaluation) or _record(evaluation, "done")
                self._settle(evaluation.id, record, reused=True)
        self._save()

    def _specs(self) -> Iterator[TaskSpec]:
        """The tasks that are left, case by case and network by network."""
        for case, record in self.checked.records.items():
            combinations = [
                combination for combination in self.checked.combinations if combination.case == case
            ]
            if not self.earlier.has_case(record):
                self._write_copies(case)
            for combination in combinations:
                yield from self._specs_of(combination)

    def _specs_of(self, combination: Combination) -> Iterator[TaskSpec]:
        """What is left of a combination; a task counts as started when the executor takes it."""
        if self._is_done(combination):
            return
        common = CombinationSpec.of(self.checked, combination, self.store.folder)
        kept = tuple(maps_of(self.manifest, combination))
        if not self._is_predicted(combination):
            self.log.add("predicting", **_place(combination))
            yield PredictionSpec(common=common)
        tasks = self.checked.plan.tasks_of(combination)
        waiting = [task for task in map(self._missing, tasks) if task.methods]
        for task in waiting:
            self._start(task)
            yield ExplanationSpec(common=common, task=task)
        for evaluation in self.checked.plan.evaluations_of(combination):
            if evaluation.id not in self.scores:
                self._start(evaluation)
                yield EvaluationSpec(
                    common=common,
                    after=tuple(task.id for task in waiting),
                    task=evaluation,
                    declared=self.checked.plan.methods_of(combination),
                    maps=kept,
                    resume=self.resume,
                )

    def _start(self, task: Task | EvaluationTask) -> None:
        """Says that a task begins, also in the events: a process that dies leaves its name."""
        methods = ", ".join(task.labels)
        self.log.add("task started", **_place(task.combination), kind=task.kind, methods=methods)
        self.listener.started(task)

    def _receive(self, result: TaskResult) -> None:
        """Takes what came of a task into the manifest."""
        self.manifest.predictions += result.predictions
        self._add_maps(result.maps)
        task = self.tasks.get(result.id)
        if task is None:  # a prediction; where it fails, the tasks after it say why
            for text in result.warnings:
                warnings.warn(text, VoxplainWarning, stacklevel=2)
            return
        self.scores[task.id] = result.scores
        record = _record(task, "failed" if result.reason else "done")
        record.reason = self.private(result.reason) or None
        record.seconds = result.seconds
        record.warnings = [self.private(text) for text in result.warnings]
        self.has_new_maps |= task.kind == "maps"
        self._settle(task.id, record, reused=False)

    def _settle(self, task: TaskId, record: TaskRecord, reused: bool) -> None:
        """Puts the record of a task into the manifest, and the manifest on disk."""
        self.records[task] = record
        self.manifest.tasks = list(self.records.values())
        if not reused:
            facts = record.model_dump(exclude={"status", "methods", "warnings", "seconds"})
            self.log.add(f"task {record.status}", **facts, methods=", ".join(record.methods))
            self._save()
        self.listener.finished(record, reused)

    def _write_scores(self) -> None:
        """Writes the table of all scores, in the order of the plan."""
        evaluations = self.checked.plan.evaluations
        if evaluations:
            scores = [self.scores[task.id] for task in evaluations if task.id in self.scores]
            self.store.write_scores(completed(Scores.joined(scores)))
        elif self.has_new_maps:
            self.store.remove_scores()  # they are of the maps that were there before

    def _write_copies(self, case: str) -> None:
        """Writes the image and the reference of a case without any identity."""
        image = self.resources.image(self.checked.image_source(case))
        self.store.write_source(case, image)
        config = self.checked.cases[case]
        if config.reference is not None:
            ignore = config.reference_ignore
            labels = read_mask(config.reference, image.source_grid, ignore=ignore)
            self.store.write_reference(case, labels, image.source_grid)

    def _is_done(self, combination: Combination) -> bool:
        plan = self.checked.plan
        missing = any(self._missing(task).methods for task in plan.tasks_of(combination))
        scored = all(task.id in self.scores for task in plan.evaluations_of(combination))
        return self._is_predicted(combination) and not missing and scored

    def _is_predicted(self, combination: Combination) -> bool:
        return combination.id in {
            (record.case, record.model, record.target) for record in self.manifest.predictions
        }

    def _missing(self, task: Task) -> Task:
        return task.without(self.map_keys[task.combination.id])

    def _add_maps(self, records: Sequence[MapRecord]) -> None:
        self.manifest.maps += records
        for record in records:
            self.map_keys[record.case, record.model, record.target].add(record.key)

    def _save(self) -> None:
        """Writes the manifest, with predictions and maps in the order of the plan."""
        combinations = [combination.id for combination in self.checked.combinations]
        place = {combination: number for number, combination in enumerate(combinations)}
        tasks = self.checked.plan.tasks
        order = {key: number for number, task in enumerate(tasks) for key in task.methods}
        self.manifest.predictions.sort(key=lambda r: place[r.case, r.model, r.target])
        self.manifest.maps.sort(key=lambda r: (place[r.case, r.model, r.target], order[r.key]))
        for model in self.manifest.models:
            model.precision = _precision_of(model, self.manifest.maps)
        self.manifest.seconds = round(time.monotonic() - self.start, 3)
        self.store.write_manifest(self.manifest)

    def _new_manifest(self) -> Manifest:
        """The manifest of a run that has done nothing yet."""
        records, models = self.checked.records.values(), self.checked.models.values()
        for record in records:
            record.warnings = [self.private(text) for text in record.warnings]
        return Manifest(
            software=software(),
            device=", ".join(sorted({device_name(loaded.model) for loaded in models})),
            seed=self.checked.study.execution.seed,
            study_sha256="",
            cases=list(records),
            models=[
                ModelRecord(
                    **loaded.facts.model_dump(exclude={"precision"}),
                    labels=loaded.config.labels,
                    explained=not loaded.config.only_compared,
                    definition=loaded.definition,
                    fingerprint=loaded.fingerprint,
                    probe=loaded.probe,
                )
                for loaded in models
            ],
            tasks=list(self.records.values()),
        )


def _precision_of(model: ModelRecord, maps: Sequence[MapRecord]) -> str:
    """The precisions in which the passes for the maps of a model ran."""
    stated = [record.precision for record in maps if record.model == model.name]
    ran = (name for text in stated for name in text.split(" and ") if name)
    return " and ".join(dict.fromkeys(ran))


def _place(combination: Combination) -> dict[str, str]:
    return {"case": combination.case, "model": combination.model, "target": combination.slug}


def _record(task: Task | EvaluationTask, status: Status = "pending") -> TaskRecord:
    combination = task.combination
    return TaskRecord(
        key=task.key,
        case=combination.case,
        model=combination.model,
        target=combination.slug,
        methods=task.labels,
        kind=task.kind,
        status=status,
        passes=task.passes,
    )
