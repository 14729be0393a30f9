"""Who is told how a run goes on."""

from __future__ import annotations

from typing import Protocol

from voxplain.records.manifest import TaskRecord
from voxplain.study.planning.evaluation_task import EvaluationTask
from voxplain.study.planning.plan import Plan
from voxplain.study.planning.tasks import Task


class Listener(Protocol):
    """Is told how a run goes on."""

    def planned(self, plan: Plan) -> None:
        """The request is right; these tasks follow."""

    def started(self, task: Task | EvaluationTask) -> None:
        """A task begins, or the judging of the maps of a subject."""

    def passed(self, done: int, planned: int) -> None:
        """So many of the passes of the task are done."""

    def failed(self, error: Exception) -> None:
        """The task, or the prediction before it, raised this; the run goes on."""

    def finished(self, record: TaskRecord, reused: bool) -> None:
        """A task is done, has failed, or was done in an earlier run."""


class Silent:
    """Tells nobody."""

    def planned(self, plan: Plan) -> None:
        """Nothing."""

    def started(self, task: Task | EvaluationTask) -> None:
        """Nothing."""

    def passed(self, done: int, planned: int) -> None:
        """Nothing."""

    def failed(self, error: Exception) -> None:
        """Nothing."""

    def finished(self, record: TaskRecord, reused: bool) -> None:
        """Nothing."""
