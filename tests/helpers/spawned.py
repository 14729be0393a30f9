"""An executor that sends every task to another process, which has loaded nothing before."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

from voxplain.study.execution.execute import TaskResult, TaskSpec, execute
from voxplain.study.execution.resources import LoadedResources
from voxplain.study.planning.tasks import TaskId


class SpawnedExecutor:
    """Pickles every task, does it in a spawned process, and pickles what comes back.

    Attributes:
        sent: The pickled tasks.
    """

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def run(self, specs: Iterable[TaskSpec]) -> Iterator[TaskResult]:
        results: dict[TaskId, TaskResult] = {}
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            for spec in specs:
                self.sent.append(pickle.dumps(spec.with_results(results)))
                came = pool.submit(executed, self.sent[-1], torch.get_num_threads()).result()
                results[spec.id] = pickle.loads(came)
                yield results[spec.id]


def executed(sent: bytes, threads: int) -> bytes:
    """What came of a pickled task, pickled; nothing is kept from the task before."""
    torch.set_num_threads(threads)
    return pickle.dumps(execute(pickle.loads(sent), LoadedResources()))
