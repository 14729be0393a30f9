"""The executor of a Dask cluster, one that is running or one that SLURM starts for the run.

A Dask worker does one task at a time, in a process of its own that limits of time and memory end,
as on a single machine. What travels are descriptions of tasks and of results: images, networks and
maps are read and written by the workers.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from voxplain.errors import ConfigError, VoxplainError
from voxplain.study.config.clusters import DaskCluster, SlurmCluster, SlurmJobs
from voxplain.study.config.run import RunConfig
from voxplain.study.execution.execute import written
from voxplain.study.execution.executors import Started
from voxplain.study.execution.executors.isolated import IsolatedWorker, StoppedError
from voxplain.study.execution.executors.pool import WorkerPool
from voxplain.study.execution.executors.worker import WorkerSettings
from voxplain.study.execution.progress import Listener
from voxplain.study.execution.queue import TaskQueue
from voxplain.study.execution.specs.result import TaskResult
from voxplain.study.execution.specs.spec import TaskSpec
from voxplain.version import __version__

_LOOK = 0.5
_LOSSES = 10
"""Rounds in which a cluster may lose the workers of a task, four or so in each."""
_ASK, _FORGOTTEN = 2.0, 10.0
"""Seconds between questions about a task, and after which one that no free worker has is lost."""
_LAST_MINUTE = 60
"""Seconds before the end of a job at which its worker takes no more tasks."""
_SETTINGS = {
    # Without these, workers that were killed one after another left a cluster without any.
    "distributed.deploy.lost-worker-timeout": "24h",
    "distributed.worker.daemon": False,
    "distributed.scheduler.work-stealing": False,
}


def cluster_executor(run: RunConfig, listener: Listener) -> tuple[ClusterExecutor, int]:
    """The executor of the cluster of a run, and how many tasks it does at a time.

    Raises:
        ConfigError: If Dask is not installed, or there is no scheduler at the address.
    """
    try:
        import distributed
    except ImportError as error:
        raise ConfigError("run.executor: pip install 'voxplain[dask]' first") from error
    import dask

    dask.config.set(_SETTINGS)
    assert run.executor != "local"
    with _in_words(run.executor):
        if isinstance(run.executor, SlurmCluster):
            client = distributed.Client(_slurm(run.executor.slurm, run.threads))
            count = run.executor.slurm.jobs
        else:
            where = run.executor.dask
            named = {"scheduler_file": where} if where.endswith(".json") else {"address": where}
            client = distributed.Client(**named, timeout="15s", set_as_default=False)
            count = max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
    if isinstance(run.workers, int) and run.workers:
        count = run.workers
    return ClusterExecutor(client, count, run, listener), count


class ClusterExecutor:
    """Does the tasks on a Dask cluster.

    Args:
        client: Of the cluster; it is closed when the tasks are done.
        count: How many tasks are on their way at a time.
        run: How the study is carried out.
        listener: Callbacks.
    """

    def __init__(self, client: Any, count: int, run: RunConfig, listener: Listener) -> None:
        self._client, self._count, self._run, self._listener = client, count, run, listener

    def run(self, queue: TaskQueue, started: Started) -> Iterator[TaskResult]:
        """The result of every task; see :class:`Executor`."""
        settings = WorkerSettings(self._run.threads)
        count = min(self._count, len(queue))
        workers = [_Place(self._client, settings, self._run.memory) for _ in range(count)]
        try:
            if workers:
                yield from WorkerPool(workers, self._listener).run(queue, started)
        finally:
            cluster = self._client.cluster
            self._client.close()
            if cluster is not None:
                cluster.close()


class _Place:
    """One task at a time on a cluster, on the worker of the last one where it is free."""

    def __init__(self, client: Any, settings: WorkerSettings, memory: int | None) -> None:
        self._client, self._settings, self._memory = client, settings, memory
        self._address: str | None = None
        self._stopped = threading.Event()

    def run(self, spec: TaskSpec) -> TaskResult:
        from distributed import KilledWorker
        from distributed import TimeoutError as NotDone

        future, losses = self._submit(spec), 0
        watch = _ForgottenTask(self._client)
        while True:
            try:
                result, self._address = future.result(timeout=_LOOK)
            except NotDone:
                if self._stopped.is_set():
                    future.cancel(force=True)
                    raise StoppedError from None
                if watch.is_forgotten(future.key):
                    future.cancel(force=True)
                    self._address = None
                    future = self._submit(spec)
            except KilledWorker:  # workers were lost, which is not the fault of the task
                losses += 1
                if losses > _LOSSES:
                    text = f"its worker was lost again and again ({losses} rounds)"
                    return written(spec, TaskResult(spec.id, reason=text))
                future = self._submit(spec)
            except VoxplainError as error:
                return written(spec, TaskResult(spec.id, reason=str(error)))
            else:
                return result  # type: ignore[no-any-return]

    def stop(self) -> None:
        self._stopped.set()

    def _submit(self, spec: TaskSpec) -> Any:
        preferred = {"workers": [self._address], "allow_other_workers": True}
        return self._client.submit(
            do_on_cluster,
            *(spec, self._settings, self._memory, __version__),
            pure=False,
            **(preferred if self._address else {}),
        )


class _ForgottenTask:
    """Notices a task that no worker has although workers are free.

    Dask may lose track of a task whose worker is killed at the moment it is given out; such a task
    would be waited for forever.

    Args:
        client: Of the cluster.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._asked = self._seen = time.monotonic()

    def is_forgotten(self, key: str) -> bool:
        """Whether no worker has had a task for a while, and some could have taken it all along."""
        now = time.monotonic()
        if now - self._asked < _ASK:
            return False
        self._asked = now
        held: Mapping[str, Sequence[str]] = self._client.processing()
        is_waiting = all(held.values()) or any(key in keys for keys in held.values())
        if is_waiting:
            self._seen = now
        if now - self._seen < _FORGOTTEN:
            return False
        self._seen = now
        return True


_PLACES: dict[str, IsolatedWorker] = {}
"""The process of each Dask worker, by the address of the worker."""


def do_on_cluster(
    spec: TaskSpec, settings: WorkerSettings, memory: int | None, version: str
) -> tuple[TaskResult, str]:
    """Does a task on the Dask worker that this is called in.

    Returns:
        The result, and the address of the worker.

    Raises:
        ConfigError: If the worker does not see the run directory, or has another voxplain.
    """
    from distributed import get_worker

    address = str(get_worker().address)
    if version != __version__:
        host = socket.gethostname()
        raise ConfigError(f"the worker on {host} has voxplain {__version__}, not {version}")
    if not Path(spec.folder).is_dir():
        raise ConfigError(f"the worker on {socket.gethostname()} does not see the run directory")
    place = _PLACES.get(address)
    if place is None:
        place = _PLACES[address] = IsolatedWorker(settings, memory)
    return place.run(spec), address


def _slurm(jobs: SlurmJobs, threads: int) -> Any:
    """A cluster of SLURM jobs, each with one worker that ends before its job does."""
    try:
        from dask_jobqueue.slurm import SLURMCluster
    except ImportError as error:
        raise ConfigError("run.executor: pip install 'voxplain[slurm]' first") from error

    minutes, _ = divmod(int(jobs.time), 60)
    hours, minutes = divmod(minutes, 60)
    lifetime = max(_LAST_MINUTE, int(jobs.time) - _LAST_MINUTE)
    cluster = SLURMCluster(
        queue=jobs.queue,
        account=jobs.account,
        cores=1,
        processes=1,
        job_cpu=threads,
        memory=f"{jobs.memory // 10**6}MB",
        walltime=f"{hours:02d}:{max(minutes, 1 if not hours else 0):02d}:00",
        job_extra_directives=[
            *([f"--gres=gpu:{jobs.gpus}"] if jobs.gpus else []),
            *jobs.directives,
        ],
        worker_extra_args=["--lifetime", f"{lifetime}s"],
        python=sys.executable,
        scheduler_options={"dashboard_address": "127.0.0.1:0"},
    )
    cluster.adapt(minimum=jobs.jobs, maximum=jobs.jobs)
    return cluster


@contextlib.contextmanager
def _in_words(cluster: DaskCluster | SlurmCluster) -> Iterator[None]:
    """A block whose errors say that there is no such cluster."""
    try:
        yield
    except VoxplainError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        where = cluster.dask if isinstance(cluster, DaskCluster) else "SLURM"
        raise ConfigError(
            f"run.executor: no cluster answers at {where} ({type(error).__name__})"
        ) from error
