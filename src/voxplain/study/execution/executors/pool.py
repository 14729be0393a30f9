"""Tasks given to several workers at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from types import FrameType
from typing import Protocol

from voxplain.study.execution.executors import Started
from voxplain.study.execution.executors.isolated import StoppedError
from voxplain.study.execution.progress import Listener
from voxplain.study.execution.queue import TaskQueue
from voxplain.study.execution.specs.result import TaskResult
from voxplain.study.execution.specs.spec import TaskSpec

_LOOK = 0.2
"""Seconds between two looks at whether somebody stopped the run."""


_STOPPING = "no more tasks are started; Ctrl-C again drops those that are running"


class TaskRunner(Protocol):
    """A place where one task runs at a time."""

    def run(self, spec: TaskSpec) -> TaskResult:
        """The result of a task, when it is done; any number of workers wait at the same time.

        Raises:
            StoppedError: If :meth:`stop` was called meanwhile.
        """

    def stop(self) -> None:
        """Drops the present task, and gives back what the worker holds."""


class WorkerPool:
    """Gives tasks to workers as they get free.

    The first interrupt (Ctrl-C) starts no more tasks and waits for those that run; the second one
    drops them. A task is done whole or not at all.

    Args:
        workers: At least one.
        listener: Callbacks.
    """

    def __init__(self, workers: Sequence[TaskRunner], listener: Listener) -> None:
        self._workers, self._listener = workers, listener
        self._interrupts = 0

    def run(self, queue: TaskQueue, started: Started) -> Iterator[TaskResult]:
        """The result of every task, as soon as it is done; see :class:`Executor`.

        Raises:
            KeyboardInterrupt: After an interrupt, once nothing runs any more.
        """
        idle = deque(self._workers)
        running: dict[Future[TaskResult], tuple[TaskRunner, TaskSpec]] = {}
        threads = ThreadPoolExecutor(len(self._workers), thread_name_prefix="voxplain-worker")
        with self._interruptible(), threads:
            try:
                while True:
                    if not self._interrupts:
                        self._give(queue, started, idle, running, threads)
                    if not running:
                        break
                    finished, _ = wait(running, timeout=_LOOK, return_when=FIRST_COMPLETED)
                    if self._interrupts > 1:
                        break
                    for future in finished:
                        worker, _ = running.pop(future)
                        idle.append(worker)
                        result = future.result()
                        queue.finish(result)
                        yield result
            finally:
                self._stop()
                for future in running:
                    with contextlib.suppress(StoppedError):
                        future.result()
        if self._interrupts:
            raise KeyboardInterrupt

    def _give(
        self,
        queue: TaskQueue,
        started: Started,
        idle: deque[TaskRunner],
        running: dict[Future[TaskResult], tuple[TaskRunner, TaskSpec]],
        threads: ThreadPoolExecutor,
    ) -> None:
        """Gives a task to every idle worker for which there is one."""
        for _ in range(len(idle)):
            worker = idle.popleft()
            spec = queue.take(id(worker))
            if spec is None:
                idle.append(worker)
            else:
                started(spec, self._workers.index(worker))
                running[threads.submit(worker.run, spec)] = (worker, spec)

    def _stop(self) -> None:
        for worker in self._workers:
            worker.stop()

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        """A block in which interrupts are counted, in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def interrupted(_number: int, _frame: FrameType | None) -> None:
            self._interrupts += 1
            if self._interrupts == 1:
                self._listener.told(_STOPPING)

        previous = signal.signal(signal.SIGINT, interrupted)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)
