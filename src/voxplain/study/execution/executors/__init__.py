"""Where the tasks of a study run: what every executor does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from voxplain.study.execution.execute import TaskResult, TaskSpec


class Executor(Protocol):
    """Does tasks, in this process or elsewhere."""

    def run(self, specs: Iterable[TaskSpec]) -> Iterator[TaskResult]:
        """The result of every task, as soon as it is done.

        An executor takes a task from the iterable when it has room for it, and starts it once the
        tasks are done that it comes ``after``. What fails is a result with a reason. The time limit
        of a task is the executor's to keep.

        Args:
            specs: In the order of the plan: a task never comes before those it needs.
        """
