"""Where the tasks of a study run: what every executor does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from voxplain.study.execution.queue import TaskQueue
from voxplain.study.execution.specs.result import TaskResult
from voxplain.study.execution.specs.spec import TaskSpec

Started = Callable[[TaskSpec, int], None]
"""Called when a worker, known by its number from 0 on, begins a task."""


class Executor(Protocol):
    """Does tasks, in this process or elsewhere."""

    def run(self, queue: TaskQueue, started: Started) -> Iterator[TaskResult]:
        """The result of every task, as soon as it is done.

        What fails is a result with a reason. Limits of time and memory are the executor's to keep.

        Args:
            queue: Gives out the tasks, and is told of each that is done.
            started: Called when a task begins.

        Raises:
            KeyboardInterrupt: If somebody stopped the run; finished tasks are kept.
        """
