"""A place where tasks run in a process of their own, which is watched and replaced when it dies."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import TimeoutError as NotDone
from concurrent.futures.process import BrokenProcessPool
from dataclasses import astuple, dataclass, replace

import psutil
from pebble import ProcessExpired, ProcessFuture, ProcessPool

from voxplain import processes
from voxplain.study.execution.execute import written
from voxplain.study.execution.executors import worker
from voxplain.study.execution.executors.board import WHOLE_TASK, Board
from voxplain.study.execution.executors.worker import WorkerSettings
from voxplain.study.execution.specs.result import TaskResult
from voxplain.study.execution.specs.spec import TaskSpec
from voxplain.study.planning.time_limit import in_words

_GRACE = 0.25
"""Seconds after its limit in which the stack of a task is written."""
_LOOK = 0.05
"""Seconds between two looks at a worker."""
_TASKS_PER_PROCESS = 5000
_CUDA_ERROR = "CUDA error"
"""After one of these, nothing works on the device in the same process."""
_GIGABYTE = 1e9


class StoppedError(Exception):
    """The run was stopped while the task was being done."""


@dataclass(frozen=True)
class Death:
    """How a worker process ended.

    Attributes:
        reason: In words.
        kind: ``time`` and ``memory`` for what was beyond a limit, ``crash`` for anything else.
        part: Of the task that was being done.
        seconds: From its beginning; of what was beyond its time limit, from that of the limit.
    """

    reason: str
    kind: str
    part: int
    seconds: float = 0.0


class IsolatedWorker:
    """Does one task after another in a worker process; a process that dies costs one attempt.

    What is beyond its time limit is not tried again. A process that ran out of memory is followed
    by one that takes half as many images at a time, one that crashed by another one, once each.

    Args:
        settings: How it computes.
        memory: Bytes that the process may hold; None for no limit.
        report: Called with passes done and planned of the present task.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        memory: int | None = None,
        report: Callable[[int, int], None] | None = None,
    ) -> None:
        self._settings, self._memory, self._report = settings, memory, report
        self._context = processes.WorkerContext()
        self._board = Board.in_shared_memory(self._context)
        self._faults = tempfile.NamedTemporaryFile(prefix="voxplain-", suffix=".stack")  # noqa: SIM115
        self._pool: ProcessPool | None = None
        self._stopped = threading.Event()

    def run(self, spec: TaskSpec) -> TaskResult:
        """The result of a task, when it is done.

        Raises:
            StoppedError: If :meth:`stop` was called meanwhile.
        """
        deaths: Counter[int] = Counter()
        divisor, attempts, log = 1, 0, ""
        while True:
            attempts += 1
            ending = self._attempt(spec, divisor)
            if isinstance(ending, TaskResult):
                if _CUDA_ERROR in ending.log:
                    self._drop_pool()
                if ending.out_of_memory and divisor == 1:
                    divisor = 2
                elif attempts == 1:
                    return ending
                else:
                    ending = replace(ending, log=log + ending.log, stack=log + ending.stack)
                    return written(spec, replace(ending, attempts=attempts))
                continue
            log += self._stack()
            deaths[ending.part] += 1
            if ending.kind != "time" and deaths[ending.part] == 1:
                divisor = 2 if ending.kind == "memory" else divisor
                continue
            rest = None if ending.part == WHOLE_TASK else spec.without(ending.part, ending.reason)
            if rest is None:
                failed = TaskResult(
                    spec.id, reason=ending.reason, attempts=attempts, log=log, stack=log
                )
                seconds = round(ending.seconds, 3)
                return written(spec, replace(failed, seconds=seconds, attempts=attempts))
            spec = rest

    def stop(self) -> None:
        """Ends the process at once, and the present task with it."""
        self._stopped.set()
        self._drop_pool()
        self._faults.close()

    def _attempt(self, spec: TaskSpec, divisor: int) -> TaskResult | Death:
        """What came of a task, or how the process died."""
        watch = _Watch(self._board, self._memory, spec.limit)
        try:
            future = self._schedule(spec, divisor)
            while True:
                try:
                    result: TaskResult = future.result(timeout=_LOOK)
                    return result
                except NotDone:
                    if self._report is not None:
                        self._report(int(self._board.done), int(self._board.planned))
                    if watch.is_over_limit():
                        self._kill()
                self._require_running()
        except ProcessExpired as error:
            code = error.exitcode
        except BrokenProcessPool:  # the process died before it began
            code = -9
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            reason = f"it cannot be sent to a worker process: {type(error).__name__}"
            return Death(reason, "time", WHOLE_TASK)
        self._require_running()
        self._drop_pool()  # its channel may be in any state
        return replace(watch.death(code), seconds=watch.seconds)

    def _schedule(self, spec: TaskSpec, divisor: int) -> ProcessFuture[TaskResult]:
        self._require_running()
        self._board.begin()
        for _ in range(2):
            self._pool = self._pool or self._new_pool()
            with contextlib.suppress(RuntimeError):  # its process died since the last task
                return self._pool.schedule(worker.perform, args=(spec, divisor))
            self._drop_pool()
        raise BrokenProcessPool

    def _require_running(self) -> None:
        if self._stopped.is_set():
            raise StoppedError

    def _kill(self) -> None:
        process = int(self._board.process)
        with contextlib.suppress(psutil.Error):
            if process and psutil.Process(process).ppid() == os.getpid():
                psutil.Process(process).kill()

    def _drop_pool(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            self._kill()
            pool.stop()  # type: ignore[no-untyped-call]
            pool.join()
            self._board.process = 0

    def _new_pool(self) -> ProcessPool:
        return ProcessPool(
            max_workers=1,
            max_tasks=_TASKS_PER_PROCESS,
            initializer=processes.begin,
            # Plain values: what is read before the process is tied to this one imports nothing.
            initargs=(os.getpid(), self._board.values, *astuple(self._settings), self._faults.name),
            context=self._context,
        )

    def _stack(self) -> str:
        """Where the process was when it died, as far as it could say, with the names of files."""
        with open(self._faults.name, encoding="utf-8", errors="replace") as stream:
            lines = [line for line in stream if not line.startswith("Extension modules:")]
        return re.sub(r'(?<=File ")[^"]*[/\\]', "", "".join(lines))


class _Watch:
    """Watches the worker process during one attempt at a task."""

    def __init__(self, board: Board, memory: int | None, limit: float | None) -> None:
        self._board, self._memory, self._limit = board, memory, limit
        self._peak = 0
        self._kind = ""
        self._part = WHOLE_TASK
        self._start = time.monotonic()
        self._out_of_memory_kills = _out_of_memory_kills()

    def is_over_limit(self) -> bool:
        """Whether the process has to be killed, now for the first time."""
        if self._kind:
            return False
        self._part = int(self._board.part)
        self._peak = max(self._peak, _resident(int(self._board.process)))
        deadline = self._board.deadline
        if deadline:
            self._start = deadline - (self._limit or 0)
        if deadline and time.monotonic() > deadline + _GRACE:
            self._kind = "time"
        elif self._memory is not None and self._peak > self._memory:
            self._kind = "memory"
        return bool(self._kind)

    @property
    def seconds(self) -> float:
        """Since the task began, or its part that has a limit of time."""
        return time.monotonic() - self._start

    def death(self, exitcode: int | None) -> Death:
        """How the process died."""
        part = self._part if self._kind else int(self._board.part)
        held = f"; it held {self._peak / _GIGABYTE:.1f} GB" if self._peak else ""
        if self._kind == "time":
            text = f"not done after its time limit of {in_words(self._limit or 0)}"
            return Death(f"{text}; its process was ended", "time", part)
        if self._kind == "memory":
            allowed = f"{(self._memory or 0) / _GIGABYTE:.1f} GB"
            text = (
                f"out of memory: {self._peak / _GIGABYTE:.1f} GB, and run.memory allows {allowed}"
            )
            return Death(text, "memory", part)
        if exitcode == -9:
            text = "its process was killed from outside (SIGKILL)"
            kills = _out_of_memory_kills()
            if kills is not None and kills == self._out_of_memory_kills:
                return Death(f"{text}{held}", "crash", part)
            return Death(f"{text}, as systems do when memory runs out{held}", "memory", part)
        if exitcode is not None and exitcode < 0:
            return Death(f"its process crashed ({_signal(-exitcode)}){held}", "crash", part)
        return Death(f"its process ended with exit code {exitcode}{held}", "crash", part)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _out_of_memory_kills() -> int | None:
    """How many processes Linux has killed for want of memory since it started; None elsewhere."""
    with contextlib.suppress(OSError), open("/proc/vmstat", encoding="ascii") as stream:
        for line in stream:
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return None


def _resident(process: int) -> int:
    """Bytes that a process holds; 0 if it is gone."""
    try:
        return int(psutil.Process(process).memory_info().rss) if process else 0
    except psutil.Error:
        return 0
