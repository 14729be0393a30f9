"""Progress callbacks of a run."""

from __future__ import annotations

from typing import Protocol

from voxplain.records.manifest import TaskRecord
from voxplain.study.planning.analysis_task import AnyTask
from voxplain.study.planning.checked_study import Plan


class TaskListener(Protocol):
    """Callbacks while one task runs."""

    def passed(self, done: int, planned: int) -> None:
        """So many of the passes of the task, or of its metrics, are done."""

    def began(self, part: int) -> None:
        """A part of the task begins: of an evaluation, the metric of this number from 1 on."""

    def failed(self, error: Exception) -> None:
        """The task, or a part of it, raised this; the run goes on."""


class Listener(Protocol):
    """Callbacks of a run; workers are known by their numbers, from 0 on."""

    def planned(self, plan: Plan, workers: int) -> None:
        """The study is checked; these tasks follow, done by so many worker processes."""

    def started(self, task: AnyTask, worker: int) -> None:
        """A worker begins a task."""

    def passed(self, done: int, planned: int, worker: int) -> None:
        """So many of the passes of the task of a worker, or of its metrics, are done."""

    def failed(self, log: str) -> None:
        """The tracebacks of a task that failed, or of parts of it; the run goes on."""

    def finished(self, record: TaskRecord, reused: bool) -> None:
        """A task is done, has failed, or was done in an earlier run."""

    def remaining(self, seconds: float) -> None:
        """About how long the run still takes, judged by the tasks that have ended."""

    def told(self, text: str) -> None:
        """What the person in front of the screen should know now."""


class Silent:
    """Ignores all callbacks."""

    def planned(self, plan: Plan, workers: int) -> None: ...  # noqa: D102

    def started(self, task: AnyTask, worker: int) -> None: ...  # noqa: D102

    def passed(self, done: int, planned: int, worker: int) -> None: ...  # noqa: D102

    def failed(self, log: str) -> None: ...  # noqa: D102

    def finished(self, record: TaskRecord, reused: bool) -> None: ...  # noqa: D102

    def remaining(self, seconds: float) -> None: ...  # noqa: D102

    def told(self, text: str) -> None: ...  # noqa: D102


class OfWorker:
    """The callbacks of the tasks of one worker, as callbacks of the run.

    Args:
        listener: Of the run.
        worker: Its number.
    """

    def __init__(self, listener: Listener | None = None, worker: int = 0) -> None:
        self._listener, self._worker = listener or Silent(), worker

    def passed(self, done: int, planned: int) -> None:
        """Passed on with the number of the worker."""
        self._listener.passed(done, planned, self._worker)

    def began(self, part: int) -> None:
        """Ignored."""

    def failed(self, error: Exception) -> None:
        """Ignored: the result of the task holds the traceback."""
