"""What runs inside of a worker process: tasks, one after another, with networks kept in memory."""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from voxplain import processes
from voxplain.engine.memory import smaller_batches
from voxplain.study.execution.execute import execute
from voxplain.study.execution.executors.board import Board
from voxplain.study.execution.resources import LoadedResources
from voxplain.study.execution.specs.result import TaskResult
from voxplain.study.execution.specs.spec import TaskSpec


@dataclass(frozen=True)
class WorkerSettings:
    """How a worker process computes.

    Attributes:
        threads: Of torch.
        device: The CUDA device that it sees, by its number; None to see all.
    """

    threads: int = 1
    device: str | None = None


class _TaskProcess:
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
        """Says when the block has to end; the process is killed then, and its stack is kept.

        An exception in its place could leave anything half done, an import for one, to the tasks
        that follow.
        """
        if seconds is None:
            yield
            return
        self.board.deadline = time.monotonic() + seconds
        faulthandler.dump_traceback_later(seconds, file=self.faults)
        try:
            yield
        finally:
            self.board.deadline = 0.0
            faulthandler.cancel_dump_traceback_later()


@functools.cache
def _this_worker() -> _TaskProcess:
    """This process as a worker, from what it was given when it began."""
    numbers, *settings, faults = processes.given()
    threads, device = settings
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    torch.set_num_threads(threads)
    number = torch.ones(1, requires_grad=True)
    torch.autograd.grad(2 * number, number, number)  # imports much, in the time of no task
    worker = _TaskProcess(Board(numbers), faults)
    faulthandler.enable(file=worker.faults)
    return worker


def perform(spec: TaskSpec, divisor: int) -> TaskResult:
    """Does one task in this worker.

    Args:
        spec: The task.
        divisor: Batches are so many times smaller than usual.
    """
    worker = _this_worker()
    worker.board.begin()
    with smaller_batches(divisor):
        result = execute(spec, worker.resources, worker, worker.limited)
    if result.reason:  # a network in which something failed is not used again
        worker.resources = LoadedResources()
    return result
