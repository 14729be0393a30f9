"""Runs that are killed at random moments: resumed, they give what an undisturbed one gives."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from faults import said, start
from tiny import TinyStudy

from voxplain.records.manifest import TaskRecord
from voxplain.records.outcome import outcomes, read_manifest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="children die with their parent on Linux"),
]
KILLS = 20


@pytest.fixture
def undisturbed(tiny: TinyStudy) -> dict[str, bytes]:
    """The maps and scores of a run that nobody kills."""
    methods: list[Any] = [
        {"name": "integrated_gradients", "steps": steps, "label": f"ig{steps}"}
        for steps in range(400, 406)
    ]
    smooth = {"name": "smoothgrad", "of": "saliency", "samples": 200}
    tiny.write(
        methods=[*methods, smooth],
        metrics=["sparseness", {"name": "deletion", "levels": 8}],
        run={"workers": 1},
    )
    code, text = said(tiny, "run", "study.yaml", "-o", "calm")
    assert code == 0, text
    return results(tiny.folder / "calm")


def results(run: Path) -> dict[str, bytes]:
    """The maps, predictions and scores of a run by their names."""
    files = [*run.rglob("*.nii.gz"), run / "metrics.parquet"]
    return {str(file.relative_to(run)): file.read_bytes() for file in files}


def done(run: Path) -> dict[tuple[str, str], int]:
    """When each task that is done was finished: the time of its outcome."""
    found = [(file, outcome.task) for file, outcome in outcomes(run)]
    return {
        (task.kind, task.key): file.stat().st_mtime_ns
        for file, task in found
        if task.status == "done"
    }


def require_whole_files(run: Path) -> None:
    """No reader ever sees a part of a file."""
    for file in run.rglob("*"):
        if file.name.startswith(".tmp-") or not file.is_file():
            continue
        if file.name.endswith(".nii.gz"):
            gzip.decompress(file.read_bytes())
        elif file.suffix == ".json":
            json.loads(file.read_text())


def kill_again_and_again(
    tiny: TinyStudy, run: Path, seed: int, begin: Callable[[], subprocess.Popen[str]]
) -> int:
    """Kills runs in one folder until one of them ends; what is done is never done again."""
    draw, kills = random.Random(seed), 0
    finished: dict[tuple[str, str], int] = {}
    while kills < KILLS:
        process = begin()
        started = (run / "events.jsonl").stat().st_size if (run / "events.jsonl").exists() else 0
        while process.poll() is None and not _has_grown(run / "events.jsonl", started):
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 4))
        if process.poll() is not None:
            break
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        _, alive = psutil.wait_procs(children, timeout=3)
        assert not alive, "workers outlive their run"
        require_whole_files(run)
        now = done(run)
        assert all(now.get(task) == when for task, when in finished.items()), "done twice"
        finished = now
        assert {task.status for task in read_manifest(run).tasks} <= {"done", "pending"}
    return kills


def _has_grown(file: Path, size: int) -> bool:
    return file.exists() and file.stat().st_size > size


def test_a_run_that_is_killed_again_and_again_ends_as_if_undisturbed(
    tiny: TinyStudy, undisturbed: dict[str, bytes]
) -> None:
    tiny.write(run={"workers": 2})
    kills = kill_again_and_again(tiny, tiny.run, 1, lambda: start(tiny, "run", "study.yaml"))
    before = done(tiny.run)
    code, text = said(tiny, "run", "study.yaml")
    assert code == 0, text
    after = done(tiny.run)
    assert all(after[task] == when for task, when in before.items())
    assert results(tiny.run) == undisturbed
    assert kills >= 3


def test_workers_that_are_killed_cost_one_attempt_of_their_task(
    tiny: TinyStudy, undisturbed: dict[str, bytes]
) -> None:
    draw, kills = random.Random(2), 0
    while kills < KILLS:
        process = start(tiny, "run", "study.yaml")
        while process.poll() is None:
            time.sleep(draw.uniform(0.5, 5))
            children = _workers(process.pid)
            if children and kills < KILLS:
                draw.choice(children).kill()
                kills += 1
        assert process.returncode in (0, 1)
        require_whole_files(tiny.run)
        for task in read_manifest(tiny.run).failed:
            _require_killed(task)
        if process.returncode == 0 and kills < KILLS:
            for file in (tiny.run / "maps").rglob("*ig40*"):  # there is more to do, and to kill
                file.unlink()
    for _ in range(3):
        code, text = said(tiny, "run", "study.yaml")
        if code == 0:
            break
    assert code == 0, text
    assert results(tiny.run) == undisturbed


def _require_killed(task: TaskRecord) -> None:
    assert "killed from outside (SIGKILL)" in str(task.reason)
    assert task.attempts >= 2


def _workers(process: int) -> list[psutil.Process]:
    """The worker processes of a run, without the helper processes of Python."""
    try:
        children = psutil.Process(process).children(recursive=True)
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    except psutil.Error:
        return []


def test_workers_of_a_cluster_that_are_killed_are_replaced(
    tiny: TinyStudy, undisturbed: dict[str, bytes]
) -> None:
    distributed = pytest.importorskip("distributed")
    import dask

    draw, kills = random.Random(3), 0
    lasting = {"distributed.deploy.lost-worker-timeout": "24h"}
    with dask.config.set(lasting):
        cluster = distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address=None,
            env={"PYTHONPATH": tiny.environment["PYTHONPATH"]},
        )
    try:
        tiny.write(run={"executor": {"dask": cluster.scheduler_address}})
        process = start(tiny, "run", "study.yaml")
        while process.poll() is None:
            time.sleep(draw.uniform(0.5, 4))
            alive = [nanny.pid for nanny in cluster.workers.values() if nanny.pid]
            if alive and kills < KILLS and (tiny.run / "tasks").exists():
                os.kill(draw.choice(alive), signal.SIGKILL)
                kills += 1
        text = "".join(process.communicate())
        assert process.returncode == 0, text
        assert kills >= 2
        require_whole_files(tiny.run)
        assert results(tiny.run) == undisturbed
    finally:
        cluster.close()
