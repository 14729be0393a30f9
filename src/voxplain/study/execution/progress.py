"""Progress callbacks of a run."""

from __future__ import annotations

from typing import Protocol

from voxplain.records.manifest import TaskRecord
from voxplain.study.planning.checked_study import Plan
from voxplain.study.planning.evaluation_task import EvaluationTask
from voxplain.study.planning.tasks import Task


class TaskListener(Protocol):
    """Callbacks while one task runs."""

    def passed(self, done: int, planned: int) -> None:
        """So many of the passes of the task, or of its metrics, are done."""

    def failed(self, error: Exception) -> None:
        """The task, or a part of it, raised this; the run goes on."""


class Listener(TaskListener, Protocol):
    """Callbacks of a run."""

    def planned(self, plan: Plan) -> None:
        """The study is checked; these tasks follow."""

    def started(self, task: Task | EvaluationTask) -> None:
        """A task begins."""

    def finished(self, record: TaskRecord, reused: bool) -> None:
        """A task is done, has failed, or was done in an earlier run."""


class Silent:
    """Ignores all callbacks."""

    def planned(self, plan: Plan) -> None: ...  # noqa: D102

    def started(self, task: Task | EvaluationTask) -> None: ...  # noqa: D102

    def passed(self, done: int, planned: int) -> None: ...  # noqa: D102

    def failed(self, error: Exception) -> None: ...  # noqa: D102

    def finished(self, record: TaskRecord, reused: bool) -> None: ...  # noqa: D102
