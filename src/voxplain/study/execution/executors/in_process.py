"""The executor of this process: one task after another, where a debugger can follow."""

from __future__ import annotations

from collections.abc import Iterator

from voxplain.study.execution.execute import execute
from voxplain.study.execution.executors import Started
from voxplain.study.execution.progress import TaskListener
from voxplain.study.execution.queue import TaskQueue
from voxplain.study.execution.resources import LoadedResources
from voxplain.study.execution.specs.result import TaskResult
from voxplain.study.planning.time_limit import time_limit


class InProcessExecutor:
    """Does the tasks in this process, each when it is asked for the next result.

    In the main thread a timer ends a task that runs longer than its limit, once the call of the
    network returns; elsewhere the task says in a warning that there is no limit.

    Args:
        resources: Networks and images that are loaded already.
        listener: Callbacks while a task runs.
    """

    def __init__(self, resources: LoadedResources, listener: TaskListener) -> None:
        self._resources, self._listener = resources, listener

    def run(self, queue: TaskQueue, started: Started) -> Iterator[TaskResult]:
        """The result of every task; see :class:`Executor`."""
        while (spec := queue.take()) is not None:
            started(spec, 0)
            result = execute(spec, self._resources, self._listener, time_limit)
            queue.finish(result)
            yield result
