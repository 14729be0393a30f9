"""The executor of this machine: worker processes, some for every device."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence

import psutil
import torch

from voxplain.errors import ConfigError
from voxplain.study.config.run import RunConfig
from voxplain.study.execution.executors import Started
from voxplain.study.execution.executors.isolated import IsolatedWorker
from voxplain.study.execution.executors.pool import WorkerPool
from voxplain.study.execution.executors.worker import WorkerSettings
from voxplain.study.execution.progress import Listener
from voxplain.study.execution.queue import TaskQueue
from voxplain.study.execution.specs.result import TaskResult

_PASS_BYTES = 1.6e9
"""What a worker process holds before it has loaded anything, and what its batches fill."""


class LocalExecutor:
    """Does the tasks in worker processes of this machine, which limits of time and memory end.

    Args:
        workers: What each of them sees and how it computes.
        memory: Bytes that one process may hold; None for no limit.
        listener: Callbacks.
    """

    def __init__(
        self, workers: Sequence[WorkerSettings], memory: int | None, listener: Listener
    ) -> None:
        self._workers, self._memory, self._listener = workers, memory, listener

    def run(self, queue: TaskQueue, started: Started) -> Iterator[TaskResult]:
        """The result of every task; see :class:`Executor`."""
        settings = self._workers[: len(queue)]
        if not settings:
            return
        workers = [
            IsolatedWorker(each, self._memory, functools.partial(self._report, number))
            for number, each in enumerate(settings)
        ]
        yield from WorkerPool(workers, self._listener).run(queue, started)

    def _report(self, worker: int, done: int, planned: int) -> None:
        self._listener.passed(done, planned, worker)


def workers_of(run: RunConfig, held: float) -> list[WorkerSettings]:
    """The worker processes of this machine for a run; none if it is done in this process.

    Args:
        run: How the study is carried out.
        held: Bytes that a worker holds of networks and images.

    Returns:
        The workers that ``run.workers`` asks for; for ``auto``, on CUDA one per device, or more
        where its memory allows; else one per ``run.threads`` cores, as far as memory goes.

    Raises:
        ConfigError: If there are more workers than cores.
    """
    cores = available_cores()
    devices = _cuda_devices(run.device)
    if run.workers == "auto":
        count = _automatic(run, devices, cores, held + _PASS_BYTES)
    else:
        count = run.workers
        if not devices and count > cores:
            raise ConfigError(
                f"run.workers: {count} processes and {cores} cores; {cores} or auto would do"
            )
    visible = [devices[number % len(devices)] if devices else None for number in range(count)]
    return [WorkerSettings(run.threads, device) for device in visible]


def available_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _automatic(run: RunConfig, devices: list[str], cores: int, each: float) -> int:
    """One worker per device, or several where there is room; else as cores and memory allow."""
    if devices:
        free = min(torch.cuda.mem_get_info(int(device))[0] for device in devices)
        room = int(0.8 * free // each)
        return len(devices) * max(1, min(_MOST_PER_DEVICE, room, cores // len(devices)))
    if run.device == "mps":
        return 1
    free = psutil.virtual_memory().available
    room = int(0.8 * free // (run.memory or each))
    return max(1, min(cores // run.threads, room))


_MOST_PER_DEVICE = 4


def _cuda_devices(device: str) -> list[str]:
    """The CUDA devices that workers are spread over, by the numbers that the system gives them."""
    count = torch.cuda.device_count()
    if device not in ("auto", "cuda") or not count:
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[:count] if visible else [str(number) for number in range(count)]
