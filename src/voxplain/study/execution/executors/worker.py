"""What runs inside of a worker process: tasks, one after another, with networks kept in memory."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from voxplain.engine.memory import smaller_batches
from voxplain.study.execution.execute import execute
from voxplain.study.execution.executors.board import Board
from voxplain.study.execution.resources import LoadedResources
from voxplain.study.execution.specs import TaskResult, TaskSpec
from voxplain.study.planning.time_limit import time_limit

_DIE = 1  # PR_SET_PDEATHSIG of Linux


@dataclass(frozen=True)
class WorkerSettings:
    """How a worker process computes.

    Attributes:
        threads: Of torch.
        device: The CUDA device that it sees, by its number; None to see all.
    """

    threads: int = 1
    device: str | None = None


class _Worker:
    """This process, once it is a worker.

    Attributes:
        board: Shows what it does.
        resources: Networks and images that it keeps.
        faults: Open file for the stack of a process that dies.
    """

    def __init__(self, board: Board, faults: str) -> None:
        self.board = board
        self.resources = LoadedResources()
        self.faults = open(faults, "w")  # noqa: SIM115  (as long as the process lives)

    def began(self, part: int) -> None:
        self.board.part = part

    def passed(self, done: int, planned: int) -> None:
        self.board.done, self.board.planned = done, planned

    def failed(self, error: Exception) -> None:
        """The traceback travels with the result."""

    @contextlib.contextmanager
    def limited(self, seconds: float | None) -> Iterator[None]:
        """Ends the block after that time; what does not end is killed from outside."""
        if seconds is None:
            yield
            return
        self.board.deadline = time.monotonic() + seconds
        faulthandler.dump_traceback_later(seconds + 0.5, file=self.faults)
        try:
            with time_limit(seconds):
                yield
        finally:
            self.board.deadline = 0.0
            faulthandler.cancel_dump_traceback_later()


_worker: _Worker | None = None


def start(board: Board, settings: WorkerSettings, faults: str, parent: int) -> None:
    """Makes this process a worker.

    Args:
        board: Shows what it does.
        settings: How it computes.
        faults: File for the stack of a process that dies.
        parent: Id of the process that watches this one; it dies with it.
    """
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    _die_with(parent)
    if settings.device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = settings.device
    torch.set_num_threads(settings.threads)
    _worker = _Worker(board, faults)
    faulthandler.enable(file=_worker.faults)
    board.process = os.getpid()


def perform(spec: TaskSpec, divisor: int) -> TaskResult:
    """Does one task in this worker.

    Args:
        spec: The task.
        divisor: Batches are so many times smaller than usual.
    """
    assert _worker is not None
    _worker.board.begin()
    with smaller_batches(divisor):
        result = execute(spec, _worker.resources, _worker, _worker.limited)
    if result.reason:  # a network that was interrupted at any place is not used again
        _worker.resources = LoadedResources()
    return result


def _die_with(parent: int) -> None:
    """Ends this process when its parent ends, also by a kill."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
