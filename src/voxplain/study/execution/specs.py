"""One task of a study, as data that travels to the process that does it, and what comes back."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from voxplain.attribution import explain
from voxplain.attribution.prediction import Prediction
from voxplain.engine.method import Method
from voxplain.errors import VoxplainWarning
from voxplain.image import Image
from voxplain.io import read_mask
from voxplain.records.manifest import (
    AnalysisRecord,
    FamilyPrecision,
    MapRecord,
    PredictionRecord,
    Status,
    TaskRecord,
)
from voxplain.records.scores import Scores
from voxplain.study.config.case_files import files_of
from voxplain.study.execution.earlier_results import ScoreCache
from voxplain.study.execution.evaluation_inputs import EvaluationInputs, reference_mask
from voxplain.study.execution.evaluator import Evaluator, not_scored
from voxplain.study.execution.privacy import Redactor
from voxplain.study.execution.progress import TaskListener
from voxplain.study.execution.resources import CombinationSpec, LoadedResources
from voxplain.study.execution.store import Store
from voxplain.study.planning.analysis_task import AnyTask
from voxplain.study.planning.evaluation_task import EvaluationTask
from voxplain.study.planning.tasks import Combination, CombinationId, Task, TaskId
from voxplain.study.planning.time_limit import TimeLimit


@dataclass(frozen=True)
class TaskResult:
    """What came of a task; its files are in the run directory.

    Attributes:
        id: Of the task.
        reason: Why it failed, without private words; empty if it is done.
        warnings: What the reader of the results should know, once each.
        seconds: Time it took, without loading images and networks.
        attempts: How many processes began it.
        predictions: Records of the predictions it made.
        maps: Records of the maps it wrote.
        analyses: Records of the analyses it made.
        scores: The scores it computed.
        seals: Of the files it wrote.
        families: The precision in which metrics scored, where a lower one was asked for.
        log: Tracebacks of what failed, as they are, for the terminal.
        stack: Where it failed, for the run directory.
        out_of_memory: Whether it failed for want of memory.
        unwritable: Why the run directory takes no files; empty if it does.
    """

    id: TaskId
    reason: str = ""
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    attempts: int = 1
    predictions: tuple[PredictionRecord, ...] = ()
    maps: tuple[MapRecord, ...] = ()
    analyses: tuple[AnalysisRecord, ...] = ()
    scores: Scores = field(default_factory=Scores)
    seals: Mapping[str, str] = field(default_factory=dict)
    families: Mapping[str, FamilyPrecision] = field(default_factory=dict)
    log: str = ""
    stack: str = ""
    out_of_memory: bool = False
    unwritable: str = ""


@dataclass(frozen=True, kw_only=True)
class TaskSpec(ABC):
    """One task: everything that a process needs which sees the run directory and the inputs.

    It holds no tensors and no open files, so that it can be pickled.

    Attributes:
        after: The tasks whose results this one needs; see :meth:`with_results`.
    """

    after: tuple[TaskId, ...] = ()

    @property
    @abstractmethod
    def id(self) -> TaskId:
        """What tells it from every other task of the run."""

    @property
    @abstractmethod
    def place(self) -> CombinationId:
        """Case, network and target by their names; tasks of one place need the same in memory."""

    @property
    @abstractmethod
    def cases(self) -> tuple[str, ...]:
        """The cases whose images it reads."""

    @property
    @abstractmethod
    def folder(self) -> Path:
        """The run directory."""

    @property
    @abstractmethod
    def limit(self) -> float | None:
        """Seconds that it may take, or each of its metrics; None for no limit."""

    @property
    @abstractmethod
    def private(self) -> Redactor:
        """Filters what is written: no names of source files, and no paths."""

    @property
    @abstractmethod
    def pending(self) -> TaskRecord:
        """The record of the task before it is done."""

    def with_results(self, results: Mapping[TaskId, TaskResult]) -> TaskSpec:
        """The same task with the results of those it comes :attr:`after`."""
        return self

    def without(self, part: int, reason: str) -> TaskSpec | None:
        """The same task without a part that cannot be done; None if it has no such part.

        Args:
            part: Its number.
            reason: Why, for the rows of the part.
        """
        return None

    @property
    def store(self) -> Store:
        """The run directory."""
        return Store(self.folder)

    @abstractmethod
    def load(self, resources: LoadedResources) -> None:
        """Brings what it needs into memory, before its time is taken."""

    @abstractmethod
    def perform(
        self, resources: LoadedResources, listener: TaskListener, limited: TimeLimit
    ) -> TaskResult:
        """Does the task and writes its files; called by :func:`execute`."""


@dataclass(frozen=True, kw_only=True)
class CombinationTaskSpec(TaskSpec):
    """A task of one combination.

    Attributes:
        common: What it shares with the other tasks of its combination.
    """

    common: CombinationSpec

    @property
    def combination(self) -> Combination:
        """What is explained."""
        return self.common.combination

    @property
    def place(self) -> CombinationId:
        """That of the combination."""
        return self.combination.id

    @property
    def cases(self) -> tuple[str, ...]:
        """The one of the combination."""
        return (self.combination.case,)

    @property
    def folder(self) -> Path:
        """The run directory."""
        return self.common.folder

    @property
    def limit(self) -> float | None:
        """That of every task of a combination."""
        return self.common.limit

    @property
    def methods(self) -> Sequence[Method]:
        """The methods that explain, for the first time or for a metric."""
        return ()

    @property
    def private(self) -> Redactor:
        """Filters what is written: no names of source files, and no paths."""
        declared = (self.combination.target, *self.methods)
        files = [Path(file) for declaration in declared for file in files_of(declaration)]
        return Redactor([*self.common.files, *files], self.common.network.base)

    def load(self, resources: LoadedResources) -> None:
        """The network and the prepared image."""
        resources.prepared(self.common)


@dataclass(frozen=True, kw_only=True)
class PredictionSpec(CombinationTaskSpec):
    """The prediction of a network for a case, and the score of the target.

    Attributes:
        copies: Whether to write the copies of the image and the reference of the case first.
    """

    copies: bool = False

    @property
    def id(self) -> TaskId:
        """The combination."""
        return ("prediction", *self.combination.id)

    @property
    def pending(self) -> TaskRecord:
        """That of a prediction."""
        combination = self.combination
        return TaskRecord(
            key=combination.key,
            case=combination.case,
            model=combination.model,
            target=combination.slug,
            methods=[],
            kind="prediction",
        )

    def perform(
        self, resources: LoadedResources, listener: TaskListener, limited: TimeLimit
    ) -> TaskResult:
        """Writes the predicted labels of a dense output."""
        store = self.store
        if self.copies:
            self._write_copies(store, resources.image(self.common.image))
        image = resources.prepared(self.common)
        with limited(self.common.limit):
            prediction = resources.prediction(self.common)
        file = None
        if prediction.labels is not None:
            file = store.write_prediction(
                self.combination.case, self.combination.model, prediction.labels, image.source_grid
            )
        record = _record(self.combination, prediction, file)
        return TaskResult(self.id, predictions=(record,), seals=store.seals)

    def _write_copies(self, store: Store, image: Image) -> None:
        """Writes the image and the reference without any identity."""
        case = self.common.image.case
        store.write_source(self.combination.case, image)
        if case.reference is not None:
            labels = read_mask(case.reference, image.source_grid, ignore=case.reference_ignore)
            store.write_reference(self.combination.case, labels, image.source_grid)


@dataclass(frozen=True, kw_only=True)
class ExplanationSpec(CombinationTaskSpec):
    """The maps of a group of methods that share a stream.

    Attributes:
        task: The methods whose maps are missing.
    """

    task: Task

    @property
    def id(self) -> TaskId:
        """That of the task."""
        return self.task.id

    @property
    def pending(self) -> TaskRecord:
        """That of the task."""
        return task_record(self.task)

    @property
    def methods(self) -> Sequence[Method]:
        """Those of the task."""
        return tuple(self.task.methods.values())

    def perform(
        self, resources: LoadedResources, listener: TaskListener, limited: TimeLimit
    ) -> TaskResult:
        """Writes the maps with their sidecars."""
        store = self.store
        with limited(self.common.limit):
            attributions = explain(
                resources.network(self.common).model,
                resources.prepared(self.common),
                self.methods,
                self.combination.target,
                references=resources.prepared_references(self.common) or None,
                seed=self.combination.draw_seed,
                progress=listener.passed,
            )
            keys = {method.key: key for key, method in self.task.methods.items()}
            maps = tuple(
                store.write_map(self.combination, attribution, keys[attribution.method.key])
                for attribution in attributions.values()
            )
        return TaskResult(self.id, maps=maps, seals=store.seals)


@dataclass(frozen=True, kw_only=True)
class EvaluationSpec(CombinationTaskSpec):
    """The scores of all maps of a combination.

    Attributes:
        task: The metrics.
        declared: The methods of the combination by the hash of what determines their maps, in the
            order of the plan.
        maps: Those that are written already; the tasks it comes ``after`` write the others.
        resume: Whether to keep scores of an earlier run that are still right.
        given_up: Metrics that cannot be done, by their number, and why; 0 is the randomization.
    """

    task: EvaluationTask
    declared: Mapping[str, Method]
    maps: tuple[MapRecord, ...]
    resume: bool = True
    given_up: Mapping[int, str] = field(default_factory=dict)

    @property
    def id(self) -> TaskId:
        """That of the task."""
        return self.task.id

    @property
    def pending(self) -> TaskRecord:
        """That of the task."""
        return task_record(self.task)

    def without(self, part: int, reason: str) -> EvaluationSpec:
        """The same without a metric; scores that are finished are kept."""
        return replace(self, given_up={**self.given_up, part: reason}, resume=True)

    def with_results(self, results: Mapping[TaskId, TaskResult]) -> EvaluationSpec:
        """The same with the maps that these tasks have written, in the order of the plan."""
        if not self.after:
            return self
        written = [record for task in self.after for record in results[task].maps]
        order = list(self.declared)
        maps = sorted((*self.maps, *written), key=lambda record: order.index(record.key))
        return replace(self, maps=tuple(maps), after=())

    @property
    def methods(self) -> Sequence[Method]:
        """Those behind the maps, for metrics that explain again."""
        return tuple(self.declared.values())

    def perform(
        self, resources: LoadedResources, listener: TaskListener, limited: TimeLimit
    ) -> TaskResult:
        """Writes the finished scores beside the run; the limit of time holds for each metric."""
        evaluator = Evaluator(
            folder=self.common.folder,
            task=self.task,
            records=self.maps,
            cache=ScoreCache(self.common.folder, self.combination.key, self.resume),
            private=self.private,
            limit=self.common.limit,
            time_limit=limited,
            listener=listener,
            given_up=self.given_up,
        )
        scores, reason = evaluator.run(self._evaluation_inputs(resources))
        for text in not_scored(self.maps):
            warnings.warn(text, VoxplainWarning, stacklevel=2)
        families = evaluator.families
        return TaskResult(self.id, reason=reason, scores=scores, families=families)

    def _evaluation_inputs(self, resources: LoadedResources) -> EvaluationInputs:
        loaded, image = resources.network(self.common), resources.prepared(self.common)
        case = self.common.image.case
        return EvaluationInputs(
            image=image,
            model=loaded.model,
            methods={method.key: method for method in self.methods},
            mask=reference_mask(case, self.combination.target, image),
            references=resources.prepared_references(self.common),
            networks=[loaded.as_other_network(other) for other in resources.compared(self.common)],
            ignore=case.reference_ignore,
            truth=case.truth,
        )


def _record(combination: Combination, prediction: Prediction, file: str | None) -> PredictionRecord:
    return PredictionRecord(
        case=combination.case,
        model=combination.model,
        target=combination.slug,
        in_words=prediction.in_words,
        score=prediction.score,
        probability=prediction.probability,
        image=file,
        scores=dict(prediction.scores),
        volumes=dict(prediction.volumes),
        volume_unit=prediction.volume_unit,
        key=combination.key,
        parts=combination.parts,
    )


def task_record(task: AnyTask, status: Status = "pending") -> TaskRecord:
    """The record of a task that is planned, or was done before."""
    case, model, target = task.place
    return TaskRecord(
        key=task.key,
        case=case,
        model=model,
        target=target,
        methods=task.labels,
        kind=task.kind,
        status=status,
        passes=task.passes,
    )
