"""A run in progress: which tasks are left, and what came of them."""

from __future__ import annotations

import hashlib
import math
import time
import warnings
from collections.abc import Iterator

from voxplain.errors import RunError, VoxplainWarning
from voxplain.metrics.cross_case import completed
from voxplain.records.candidates import write_candidates
from voxplain.records.folder import sweep
from voxplain.records.manifest import Manifest, TaskRecord
from voxplain.records.outcome import TaskOutcome, outcome_file, outcomes, read_outcome, scores_of
from voxplain.study.execution.earlier_results import EarlierResults, ScoreCache
from voxplain.study.execution.evaluator import finished_scores
from voxplain.study.execution.events import EventLog
from voxplain.study.execution.executors import Executor
from voxplain.study.execution.pace import ExpectedTask, Pace
from voxplain.study.execution.privacy import redactor_of
from voxplain.study.execution.progress import Listener
from voxplain.study.execution.queue import TaskQueue
from voxplain.study.execution.resolved import resolved_text
from voxplain.study.execution.resources import CombinationSpec
from voxplain.study.execution.results import Results, new_manifest
from voxplain.study.execution.selection import Selection
from voxplain.study.execution.specs.analysis import AnalysisSpec
from voxplain.study.execution.specs.evaluation import EvaluationSpec
from voxplain.study.execution.specs.explanation import ExplanationSpec
from voxplain.study.execution.specs.prediction import PredictionSpec
from voxplain.study.execution.specs.result import TaskResult
from voxplain.study.execution.specs.spec import TaskSpec, task_record
from voxplain.study.execution.store import EVENTS, Store
from voxplain.study.planning.analysis_task import AnyTask
from voxplain.study.planning.checked_study import CheckedStudy
from voxplain.study.planning.tasks import Combination, Task, TaskId


class Scheduler:
    """Carries out a checked study; nothing else writes the manifest and events.

    The manifest is written when the tasks begin, with all of them, and when they have ended. What
    comes of each task in between is in a file of its own, which whoever does the task writes; so a
    run that was stopped at any moment can be resumed.

    Args:
        checked: What to do.
        store: The run directory.
        listener: Callbacks.
        resume: Keep the results of an earlier run that are still right.
        selection: Which of the tasks that are left it does.
    """

    def __init__(
        self,
        checked: CheckedStudy,
        store: Store,
        listener: Listener,
        resume: bool,
        selection: Selection | None = None,
    ) -> None:
        self.checked, self.store, self.listener, self.resume = checked, store, listener, resume
        self.selection = selection or Selection()
        self.private = redactor_of(checked)
        self.earlier = EarlierResults(store.earlier() if resume else None, store)
        self.start = time.monotonic()
        self.tasks: dict[TaskId, AnyTask] = {task.id: task for task in checked.plan.all_tasks}
        self.results = Results(checked, new_manifest(checked, self.private), self.tasks)
        store.folder.mkdir(parents=True, exist_ok=True)
        self.log = EventLog(store.folder / EVENTS, self.private)
        self.predictions: dict[TaskId, TaskRecord] = {}
        self.pace = Pace({}, 1)

    def run(self, executor: Executor, workers: int = 1) -> Manifest:
        """Does what an earlier run has not done; returns the manifest.

        Raises:
            RunError: If the run directory takes no more files; what is finished is kept.
            KeyboardInterrupt: If somebody stopped the run; likewise.
        """
        sweep(self.store.folder)
        self._adopt()
        self._forget_copies()
        study = resolved_text(self.checked, self.private)
        self.results.manifest.study_sha256 = hashlib.sha256(study.encode()).hexdigest()
        self._save()  # first of all, so that a run which is killed can be taken up again
        self._forget_outcomes()
        self.store.write_study(study)
        write_candidates(self.store.folder, self.checked.candidates)
        self.store.write_description()
        self.listener.planned(self.checked.plan, workers)
        specs = list(self._specs())
        self.predictions = {
            spec.id: spec.pending for spec in specs if isinstance(spec, PredictionSpec)
        }
        expected = {spec.id: self._expected(spec) for spec in specs}
        self.pace = Pace(expected, workers)
        left = self.pace.left
        self.log.add("started", tasks=len(self.tasks), workers=workers, left=round(left, 3))
        for record in self.results.done:
            self.listener.finished(record, True)
        self.listener.remaining(left)
        queue = TaskQueue(specs, [task.seconds for task in expected.values()])
        unwritable = ""
        try:
            for result in executor.run(queue, self._started):
                unwritable = result.unwritable
                if unwritable:
                    break
                self._receive(result)
        finally:
            if not unwritable:
                self._finish()
        if unwritable:
            self._refuse(unwritable)
        return self.results.manifest

    def _finish(self) -> None:
        """Puts the files of the run together from those of its tasks."""
        self._save()
        evaluations = self.checked.plan.evaluations
        if evaluations:
            records = [task_record(task) for task in evaluations]
            self.store.write_scores(completed(scores_of(self.store.folder, records)))
        elif self.results.has_new_maps:
            self.store.remove_scores()  # they are of the maps that were there before
        manifest = self.results.manifest
        left = len(manifest.pending)
        self.log.add("finished", failed=len(manifest.failed), pending=left)

    def _refuse(self, reason: str) -> None:
        done = len(self.results.done)
        raise RunError(
            f"the run directory {self.store.folder} takes no more files ({reason}); {done} of "
            f"{len(self.tasks)} tasks are done and kept, and the same command does the rest"
        )

    def _adopt(self) -> None:
        """Takes over what an earlier run has left."""
        results, store = self.results, self.store
        results.manifest.seals = self.earlier.seals
        for combination in self.checked.combinations:
            prediction = self.earlier.prediction(combination)
            if prediction is not None:
                results.add_prediction(prediction)
            elif (lost := self.earlier.failed_prediction(combination)) is not None:
                results.add_failed_prediction(lost)
        for task in self.checked.plan.tasks:
            results.add_maps(self.earlier.maps(task))
            if not results.missing(task).methods:
                results.settle(task.id, self.earlier.task(task) or task_record(task, "done"))
        for evaluation in self.checked.plan.evaluations:
            if self._waiting(evaluation.combination):
                continue  # there will be maps that it has not seen
            cache = ScoreCache(store.folder, evaluation.combination.key, self.resume)
            maps = results.maps_of(evaluation.combination)
            scores = finished_scores(evaluation, maps, cache)
            if scores is None:
                continue
            record = self.earlier.task(evaluation) or task_record(evaluation, "done")
            outcome = TaskOutcome(task=record, scores=scores.to_records())
            known = read_outcome(store.folder, record)
            if known is None or repr(known.scores) != repr(outcome.scores):
                outcome.write(store.folder)
            results.settle(evaluation.id, record)
        for analysis in self.checked.plan.analyses:
            made = self.earlier.analysis(analysis)
            if made is not None:
                results.add_analyses([made])
                record = self.earlier.task(analysis) or task_record(analysis, "done")
                results.settle(analysis.id, record)
        for key, left in self.tasks.items():
            failed = self.earlier.failed(left)
            if failed is not None and not results.is_done(key) and not self._takes(left):
                results.settle(key, failed)

    def _forget_copies(self) -> None:
        """Removes the copies of images and references that are going to be replaced."""
        for case in self.checked.records.values():
            if not self.earlier.has_case(case):
                for name in filter(None, (case.image, case.reference)):
                    (self.store.folder / name).unlink(missing_ok=True)

    def _forget_outcomes(self) -> None:
        """Removes the outcomes of tasks that are not done, and of those that are no longer planned.

        What of them is kept stands in the manifest; the files of the others are going to be
        replaced, by tasks that may be called otherwise.
        """
        folder = self.store.folder
        kept = {outcome_file(folder, record) for record in self.results.ended}
        for file, _ in outcomes(folder):
            if file not in kept:
                file.unlink(missing_ok=True)

    def _specs(self) -> Iterator[TaskSpec]:
        """The tasks that are left, combination by combination."""
        copied: set[str] = set()
        for combination in self.checked.combinations:
            case = self.checked.records[combination.case]
            copies = case.id not in copied and not self.earlier.has_case(case)
            copied.add(case.id)
            yield from self._specs_of(combination, copies)
        for task in self.checked.plan.analyses:
            if not self.results.is_done(task.id) and self._takes(task):
                yield AnalysisSpec.of(self.checked, task, self.store.folder)

    def _specs_of(self, combination: Combination, copies: bool) -> Iterator[TaskSpec]:
        results, plan = self.results, self.checked.plan
        tasks, evaluations = plan.tasks_of(combination), plan.evaluations_of(combination)
        failed = self.earlier.failed_prediction(combination)
        predicts = failed is not None and self.selection.takes(failed)
        if not (predicts or any(map(self._takes, tasks)) or any(map(self._takes, evaluations))):
            return
        common = CombinationSpec.of(self.checked, combination, self.store.folder)
        if copies or not results.is_predicted(combination):
            yield PredictionSpec(common=common, copies=copies)
        waiting = self._waiting(combination)
        for task in waiting:
            yield ExplanationSpec(common=common, task=task)
        for evaluation in evaluations:
            follows = self.selection.only_failed and waiting
            if not results.is_done(evaluation.id) and (follows or self._takes(evaluation)):
                yield EvaluationSpec(
                    common=common,
                    after=tuple(task.id for task in waiting),
                    task=evaluation,
                    declared=plan.methods_of(combination),
                    maps=tuple(results.maps_of(combination)),
                    resume=self.resume,
                )

    def _waiting(self, combination: Combination) -> list[Task]:
        """The explanations that this run does, without the methods whose maps are there."""
        taken = filter(self._takes, self.checked.plan.tasks_of(combination))
        return [task for task in map(self.results.missing, taken) if task.methods]

    def _takes(self, task: AnyTask) -> bool:
        """Whether this run does a task that is left."""
        return self.selection.takes(self.earlier.failed(task) or task_record(task))

    def _expected(self, spec: TaskSpec) -> ExpectedTask:
        """About how many seconds a task takes."""
        (_, model, _), pending = spec.place, spec.pending
        per_voxel = self.checked.seconds.get(model, 0.0)
        voxels = sum(math.prod(self.checked.shapes[case, model]) for case in spec.cases)
        seconds = per_voxel * voxels / len(spec.cases) * max(1, pending.passes)
        return ExpectedTask((model, pending.kind), seconds)

    def _started(self, spec: TaskSpec, worker: int) -> None:
        """Says that a task begins, also in the events: a run that dies leaves its name."""
        place = dict(zip(("case", "model", "target"), spec.place, strict=True))
        task = self.tasks.get(spec.id)
        if task is None:
            self.log.add("predicting", **place, worker=worker)
            return
        methods = ", ".join(task.labels)
        self.log.add("task started", **place, kind=task.kind, methods=methods, worker=worker)
        self.listener.started(task, worker)

    def _receive(self, result: TaskResult) -> None:
        """Takes what came of a task into the manifest."""
        self.pace.ended(result.id, result.seconds)
        self.results.manifest.seals.update(result.seals)
        for prediction in result.predictions:
            self.results.add_prediction(prediction)
        self.results.add_maps(result.maps)
        self.results.add_analyses(result.analyses)
        if result.log:
            self.listener.failed(result.log)
        task = self.tasks.get(result.id)
        if task is None:
            self._receive_prediction(result)
            return
        record = self._ended(task_record(task), result)
        self.results.has_new_maps |= task.kind == "maps"
        self.results.settle(task.id, record)
        facts = record.model_dump(exclude={"status", "methods", "warnings", "seconds"})
        left = self.pace.left
        self.log.add(
            f"task {record.status}", **facts, methods=", ".join(record.methods), left=round(left, 3)
        )
        self.listener.finished(record, False)
        self.listener.remaining(left)

    def _receive_prediction(self, result: TaskResult) -> None:
        """Takes what came of a prediction; where it fails, the tasks after it mostly say why."""
        for text in result.warnings:
            warnings.warn(text, VoxplainWarning, stacklevel=2)
        if result.reason:
            record = self.predictions[result.id]
            self.results.add_failed_prediction(self._ended(record, result))

    def _ended(self, record: TaskRecord, result: TaskResult) -> TaskRecord:
        """The record of a task with what came of it, without private words."""
        record.status = "failed" if result.reason else "done"
        record.reason = self.private(result.reason) or None
        record.seconds, record.attempts = result.seconds, result.attempts
        record.warnings = [self.private(text) for text in result.warnings]
        record.families = dict(result.families)
        return record

    def _save(self) -> None:
        """Writes the manifest, with predictions and maps in the order of the plan."""
        manifest = self.results.ordered()
        manifest.seconds = round(time.monotonic() - self.start, 3)
        self.store.write_manifest(manifest)
