"""The executor of this process: one task after another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from voxplain.study.execution.execute import TaskResult, TaskSpec, execute
from voxplain.study.execution.progress import TaskListener
from voxplain.study.execution.resources import LoadedResources
from voxplain.study.planning.tasks import TaskId
from voxplain.study.planning.time_limit import time_limit


class LocalExecutor:
    """Does the tasks in this process, each when it is asked for the next result.

    In the main thread a timer ends a task that runs longer than its limit; elsewhere the task says
    in a warning that there is no limit.

    Args:
        resources: Networks and images that are loaded already.
        listener: Callbacks while a task runs.
    """

    def __init__(self, resources: LoadedResources, listener: TaskListener) -> None:
        self._resources, self._listener = resources, listener

    def run(self, specs: Iterable[TaskSpec]) -> Iterator[TaskResult]:
        """The result of every task, in the order of the tasks."""
        results: dict[TaskId, TaskResult] = {}
        for spec in specs:
            result = execute(
                spec.with_results(results), self._resources, self._listener, time_limit
            )
            results[spec.id] = result
            yield result
