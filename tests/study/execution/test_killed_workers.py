"""Workers that are killed at random moments: their tasks are done by others, to the last bit."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess

import psutil
import pytest
from forked_run import finished, forked_run
from killed import KILLS, done, require_kept, require_whole_files, results, work
from tiny import TinyStudy

from voxplain.records.manifest import TaskRecord
from voxplain.records.outcome import read_manifest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="children die with their parent on Linux"),
]


@pytest.fixture
def undisturbed(tiny: TinyStudy) -> dict[str, bytes]:
    """The maps and scores of a run that nobody kills."""
    tiny.write(**work(steps=100), run={"workers": 0})
    return finished(tiny.file, tiny.folder / "calm")


def kill_in_runs(
    tiny: TinyStudy, undisturbed: dict[str, bytes], kill: Callable[[BaseProcess], bool]
) -> list[TaskRecord]:
    """Kills in one run after another; the tasks that failed in them.

    Args:
        tiny: The study.
        undisturbed: What a run gives that gets through.
        kill: Waits and kills a process of a run, or the run; whether it has done so.
    """
    failed: list[TaskRecord] = []
    kills = 0
    while kills < KILLS:
        before = _settled(tiny)
        process = forked_run(tiny.file, tiny.run)
        while process.is_alive() and kills < KILLS:
            kills += kill(process)
        process.join()
        require_whole_files(tiny.run)
        require_kept(tiny.run, before)
        if process.exitcode == 0:
            assert results(tiny.run) == undisturbed
            shutil.rmtree(tiny.run)  # there is more to do, and to kill
        elif process.exitcode == 1:
            failed += read_manifest(tiny.run).failed
    assert finished(tiny.file, tiny.run) == undisturbed
    return failed


def _settled(tiny: TinyStudy) -> dict[tuple[str, str], int]:
    """What is finished for good: scores are not where maps failed, which the next run makes."""
    found = done(tiny.run)
    if not (tiny.run / "manifest.json").exists() or not read_manifest(tiny.run).failed:
        return found
    return {task: when for task, when in found.items() if task[0] != "metrics"}


def test_runs_that_are_killed_take_their_workers_with_them(
    tiny: TinyStudy, undisturbed: dict[str, bytes]
) -> None:
    draw = random.Random(1)

    def kill(process: BaseProcess) -> bool:
        while process.is_alive() and not _workers(process):
            time.sleep(0.05)
        process.join(draw.uniform(0, 12))
        workers = _workers(process)
        process.kill()
        process.join()
        _, alive = psutil.wait_procs(workers, timeout=3)
        assert not alive, "workers outlive their run"
        return process.exitcode == -signal.SIGKILL

    tiny.write(run={"workers": 2})
    assert not kill_in_runs(tiny, undisturbed, kill)


def test_workers_that_are_killed_cost_one_attempt_of_their_task(
    tiny: TinyStudy, undisturbed: dict[str, bytes]
) -> None:
    draw = random.Random(2)

    def kill(process: BaseProcess) -> bool:
        process.join(draw.uniform(0, 5))
        workers = _workers(process)
        if workers:
            draw.choice(workers).kill()
        return bool(workers)

    tiny.write(run={"workers": 2})
    for task in kill_in_runs(tiny, undisturbed, kill):
        assert "killed from outside (SIGKILL)" in str(task.reason)
        assert task.attempts >= 2


def _workers(run: BaseProcess) -> list[psutil.Process]:
    """The worker processes of a run, without the helper processes of Python."""
    try:
        children = psutil.Process(run.pid).children()
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    except psutil.Error:
        return []


def test_workers_of_a_cluster_that_are_killed_are_replaced(
    tiny: TinyStudy, undisturbed: dict[str, bytes]
) -> None:
    distributed = pytest.importorskip("distributed")
    import dask

    draw = random.Random(3)
    lasting = {"distributed.deploy.lost-worker-timeout": "24h"}
    with (
        dask.config.set(lasting),
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address=None,
            env={"PYTHONPATH": tiny.environment["PYTHONPATH"]},
        ) as cluster,
    ):

        def kill(process: BaseProcess) -> bool:
            process.join(draw.uniform(0, 5))
            alive = [nanny.pid for nanny in cluster.workers.values() if nanny.pid]
            if not alive or not (tiny.run / "tasks").exists() or not process.is_alive():
                return False
            os.kill(draw.choice(alive), signal.SIGKILL)
            return True

        tiny.write(run={"executor": {"dask": cluster.scheduler_address}})
        assert not kill_in_runs(tiny, undisturbed, kill)
