"""One run in progress: case by case, network by network, task by task."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from functools import partial

from voxplain.attribution import explain
from voxplain.attribution.prediction import Prediction
from voxplain.attribution.result import software
from voxplain.errors import VoxplainError, VoxplainWarning
from voxplain.image import Image
from voxplain.io import read_mask
from voxplain.metrics.cross_case import completed
from voxplain.records.manifest import (
    Manifest,
    MapRecord,
    ModelRecord,
    PredictionRecord,
    Status,
    TaskRecord,
)
from voxplain.records.scores import Scores
from voxplain.study.execution.evaluation_inputs import evaluation_inputs
from voxplain.study.execution.evaluator import Evaluator, left_out, maps_of
from voxplain.study.execution.events import EventLog
from voxplain.study.execution.privacy import Redactor
from voxplain.study.execution.progress import Listener
from voxplain.study.execution.resolved import resolved_study
from voxplain.study.execution.resume import EarlierResults
from voxplain.study.execution.store import EVENTS, Store
from voxplain.study.execution.time_limit import reason_of, time_limit
from voxplain.study.planning.checked_study import CheckedStudy
from voxplain.study.planning.evaluation_task import EvaluationTask
from voxplain.study.planning.inputs import (
    LoadedModel,
    device_name,
    predict_case,
    read_case,
    remarks,
    sources,
)
from voxplain.study.planning.tasks import Combination, Task


class Scheduler:
    """Carries out a checked study.

    The manifest lists every task from the start; each one changes from pending to done or failed,
    so that a run stopped at any moment can be taken up again.

    Args:
        checked: What to do.
        store: Where to.
        listener: Is told of the progress.
        resume: Keep the results of an earlier run that are still right.
    """

    def __init__(
        self, checked: CheckedStudy, store: Store, listener: Listener, resume: bool
    ) -> None:
        self.checked, self.store, self.listener = checked, store, listener
        self.private = Redactor(
            sources(checked.study, tuple(checked.cases.values())), checked.study.base
        )
        self.earlier = EarlierResults(store.earlier() if resume else None, store)
        self.start = time.monotonic()
        self.limit = checked.study.execution.timeout
        self.evaluator = Evaluator(store, self.private, self.limit, listener, fresh=not resume)
        self.scores: dict[str, Scores] = {}
        self.explained = False
        parts: list[Task | EvaluationTask] = [*checked.plan.tasks, *checked.plan.evaluations]
        self.tasks = {part.key: _record(part) for part in parts}
        self.manifest = _begun(checked, list(self.tasks.values()), self.private)
        store.folder.mkdir(parents=True, exist_ok=True)
        self.log = EventLog(store.folder / EVENTS, self.private)

    def carry_out(self) -> Manifest:
        """Every case, one image in memory at a time; returns what the run says of itself."""
        self.store.sweep()
        self.manifest.study_sha256 = self.store.write_study(resolved_study(self.checked))
        self.store.write_description()
        self.listener.planned(self.checked.plan)
        self.log.add("started", tasks=len(self.tasks))
        self._adopt()
        for case in self.checked.cases:
            self._case(case)
        self._save()
        self._write_scores()
        self.log.add("finished", failed=len(self.manifest.failed))
        return self.manifest

    def _adopt(self) -> None:
        """Takes over what an earlier run has left."""
        for combination in self.checked.combinations:
            kept = self.earlier.prediction(combination)
            self.manifest.predictions += [kept] if kept else []
        for task in self.checked.plan.tasks:
            self.manifest.maps += self.earlier.maps(task.methods)
            if not self._missing(task).methods:
                self._settle(self.earlier.task(task) or _record(task, "done"), reused=True)
        for evaluation in self.checked.plan.evaluations:
            known = self.evaluator.finished(evaluation, self._maps(evaluation.combination))
            if known is not None:
                self.scores[evaluation.key] = known
                self._settle(
                    self.earlier.task(evaluation) or _record(evaluation, "done"), reused=True
                )
        self._save()

    def _case(self, case: str) -> None:
        combinations = [
            combination for combination in self.checked.combinations if combination.case == case
        ]
        if self.earlier.has_case(self.checked.records[case]) and all(
            map(self._is_done, combinations)
        ):
            return
        image = read_case(self.checked.cases[case])
        self._write_source(case, image)
        for name, loaded in self.checked.models.items():
            waiting = [
                each for each in combinations if each.model == name and not self._is_done(each)
            ]
            prepared = loaded.prepare(image) if waiting else image
            for combination in waiting:
                self._combination(combination, prepared, loaded)

    def _combination(self, combination: Combination, image: Image, loaded: LoadedModel) -> None:
        if not self._is_predicted(combination):
            self._predict(combination, image, loaded)
        for task in self._tasks(combination):
            missing = self._missing(task)
            if missing.methods:
                self.listener.started(missing)
                work = partial(self._explain, missing, image, loaded)
                self._settle(self._attempt(task, work, self.limit), reused=False)
        for evaluation in self._evaluations(combination):
            if evaluation.key not in self.scores:
                self.listener.started(evaluation)
                evaluator = partial(self._evaluate, evaluation, image, loaded)
                self._settle(self._attempt(evaluation, evaluator), reused=False)

    def _predict(self, combination: Combination, image: Image, loaded: LoadedModel) -> None:
        """Records what the network says; why it cannot is told by the tasks that follow."""
        asked = (combination.case, combination.model, combination.slug)
        try:
            made = self.checked.predictions.get(asked) or predict_case(
                loaded, image, combination.target
            )
        except VoxplainError as error:
            self.listener.failed(error)
            return
        file = None
        if made.labels is not None:
            labels = (made.labels, image.source_grid)
            file = self.store.write_prediction(combination.case, combination.model, *labels)
        self.manifest.predictions.append(_prediction(combination, made, file))

    def _attempt(
        self,
        task: Task | EvaluationTask,
        work: Callable[[], str | None],
        limit: float | None = None,
    ) -> TaskRecord:
        """Explains or judges; a failure ends in the record, so that the other tasks go on.

        Args:
            task: What is done.
            work: Does it; may return what failed in words.
            limit: Seconds that it may take as a whole.
        """
        record = _record(task, "done")
        start = time.perf_counter()
        found: list[str] = []
        try:
            with remarks(found), time_limit(limit):
                record.reason = work() or None
        except Exception as error:
            record.reason = self.private(reason_of(error, limit))
            self.listener.failed(error)
        record.status = "failed" if record.reason else "done"
        record.seconds = round(time.perf_counter() - start, 3)
        record.warnings = [self.private(text) for text in found]
        return record

    def _explain(self, task: Task, image: Image, loaded: LoadedModel) -> None:
        combination = task.combination
        self.explained = True
        found = explain(
            loaded.model,
            image,
            list(task.methods.values()),
            combination.target,
            references=[loaded.prepare(other) for other in self.checked.references] or None,
            seed=combination.draw_seed,
            progress=self.listener.passed,
        )
        keys = {method.key: key for key, method in task.methods.items()}
        self.manifest.maps += [
            self.store.write_map(combination, attribution, keys[attribution.method.key])
            for attribution in found.values()
        ]

    def _evaluate(self, evaluation: EvaluationTask, image: Image, loaded: LoadedModel) -> str:
        """Judges what was written; the limit of time holds for each metric. Returns what failed."""
        records = self._maps(evaluation.combination)
        inputs = evaluation_inputs(self.checked, evaluation.combination, image, loaded)
        scores, failures = self.evaluator.evaluator(evaluation, records, inputs)
        self.scores[evaluation.key] = scores
        for text in left_out(records):
            warnings.warn(text, VoxplainWarning, stacklevel=2)
        return failures

    def _write_scores(self) -> None:
        """The table of all scores, in the order of the plan."""
        keys = [evaluation.key for evaluation in self.checked.plan.evaluations]
        table = Scores.joined(self.scores[key] for key in keys if key in self.scores)
        if keys:
            self.store.write_scores(completed(table))
        elif self.explained:
            self.store.forget_scores()  # they are of maps that were

    def _settle(self, record: TaskRecord, reused: bool) -> None:
        """Puts what became of a task into the manifest, and the manifest on disk."""
        self.tasks[record.key] = record
        self.manifest.tasks = list(self.tasks.values())
        if not reused:
            facts = record.model_dump(exclude={"status", "methods", "warnings", "seconds"})
            self.log.add(f"task {record.status}", **facts, methods=", ".join(record.methods))
            self._save()
        self.listener.finished(record, reused)

    def _write_source(self, case: str, image: Image) -> None:
        self.store.write_source(case, image)
        reference = self.checked.cases[case].reference
        if reference is not None:
            labels = read_mask(reference, image.source_grid)
            self.store.write_reference(case, labels, image.source_grid)

    def _is_done(self, combination: Combination) -> bool:
        missing = any(self._missing(task).methods for task in self._tasks(combination))
        judged = all(evaluation.key in self.scores for evaluation in self._evaluations(combination))
        return self._is_predicted(combination) and not missing and judged

    def _is_predicted(self, combination: Combination) -> bool:
        return any(record.key == combination.key for record in self.manifest.predictions)

    def _missing(self, task: Task) -> Task:
        return task.without({record.key for record in self.manifest.maps})

    def _tasks(self, combination: Combination) -> list[Task]:
        return [task for task in self.checked.plan.tasks if task.combination is combination]

    def _evaluations(self, combination: Combination) -> list[EvaluationTask]:
        return [part for part in self.checked.plan.evaluations if part.combination is combination]

    def _maps(self, combination: Combination) -> list[MapRecord]:
        return maps_of(self.manifest, combination)

    def _save(self) -> None:
        order = {key: n for n, task in enumerate(self.checked.plan.tasks) for key in task.methods}
        self.manifest.maps.sort(key=lambda record: order[record.key])
        self.manifest.seconds = round(time.monotonic() - self.start, 3)
        self.store.write_manifest(self.manifest)


def _begun(checked: CheckedStudy, tasks: list[TaskRecord], private: Redactor) -> Manifest:
    for record in checked.records.values():
        record.warnings = [private(text) for text in record.warnings]
    models = checked.models.values()
    return Manifest(
        software=software(),
        device=", ".join(sorted({device_name(loaded.model) for loaded in models})),
        seed=checked.study.execution.seed,
        study_sha256="",
        cases=list(checked.records.values()),
        models=[
            ModelRecord(
                **loaded.facts.model_dump(),
                labels=loaded.config.labels,
                explained=not loaded.config.only_compared,
            )
            for loaded in models
        ],
        tasks=tasks,
    )


def _record(task: Task | EvaluationTask, status: Status = "pending") -> TaskRecord:
    combination = task.combination
    return TaskRecord(
        key=task.key,
        case=combination.case,
        model=combination.model,
        target=combination.slug,
        methods=task.labels,
        kind="maps" if isinstance(task, Task) else "metrics",
        status=status,
        passes=task.passes,
    )


def _prediction(combination: Combination, made: Prediction, file: str | None) -> PredictionRecord:
    return PredictionRecord(
        case=combination.case,
        model=combination.model,
        target=combination.slug,
        in_words=made.in_words,
        score=made.score,
        probability=made.probability,
        image=file,
        scores=made.scores,
        volumes=made.volumes,
        volume_unit=made.volume_unit,
        key=combination.key,
    )
