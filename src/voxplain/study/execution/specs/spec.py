"""One task of a study, as data that travels to the process that does it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from voxplain.engine.method import Method
from voxplain.records.manifest import Status, TaskRecord
from voxplain.study.config.case_files import files_of
from voxplain.study.execution.privacy import Redactor
from voxplain.study.execution.progress import TaskListener
from voxplain.study.execution.resources import CombinationSpec, LoadedResources
from voxplain.study.execution.specs.result import TaskResult
from voxplain.study.execution.store import Store
from voxplain.study.planning.analysis_task import AnyTask
from voxplain.study.planning.evaluation_task import EvaluationTask
from voxplain.study.planning.tasks import Combination, CombinationId, Task, TaskId
from voxplain.study.planning.time_limit import TimeLimit


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
class PlannedSpec(CombinationTaskSpec):
    """A task of a combination that the plan lists.

    Attributes:
        task: What the plan says of it.
    """

    task: Task | EvaluationTask

    @property
    def id(self) -> TaskId:
        """That of the task."""
        return self.task.id

    @property
    def pending(self) -> TaskRecord:
        """That of the task."""
        return task_record(self.task)


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
