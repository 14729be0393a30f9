"""An executor that sends every task to another process, which has loaded nothing before."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

from voxplain.study.execution.execute import execute
from voxplain.study.execution.executors import Started
from voxplain.study.execution.queue import TaskQueue
from voxplain.study.execution.resources import LoadedResources
from voxplain.study.execution.specs.result import TaskResult


class SpawnedExecutor:
    """Pickles every task, does it in a spawned process, and pickles what comes back.

    Attributes:
        sent: The pickled tasks.
    """

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def run(self, queue: TaskQueue, started: Started) -> Iterator[TaskResult]:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            while (spec := queue.take()) is not None:
                started(spec, 0)
                self.sent.append(pickle.dumps(spec))
                came = pool.submit(executed, self.sent[-1], torch.get_num_threads()).result()
                result = pickle.loads(came)
                queue.finish(result)
                yield result


def executed(sent: bytes, threads: int) -> bytes:
    """What came of a pickled task, pickled; nothing is kept from the task before."""
    torch.set_num_threads(threads)
    return pickle.dumps(execute(pickle.loads(sent), LoadedResources()))
