"""Studies in worker processes: workers side by side, cost of a task, memory, large plans."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import psutil
import torch
import yaml
from safetensors.torch import save_file

from benchmarks.page import Table, seconds, times
from voxplain.records.manifest import MapRecord, TaskRecord
from voxplain.records.outcome import TaskOutcome, seal
from voxplain.study import Study, check_study, run_study
from voxplain.study.execution.executors import Started
from voxplain.study.execution.progress import Silent
from voxplain.study.execution.queue import TaskQueue
from voxplain.study.execution.scheduler import Scheduler
from voxplain.study.execution.specs.result import TaskResult
from voxplain.study.execution.specs.spec import task_record
from voxplain.study.execution.store import Store
from voxplain.zoo import unet3d

HEADER = ("", "measured", "asked")


def run(quick: bool = False) -> Table:
    """Ratios of whole runs, and what the run itself costs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [*_side_by_side(folder, quick), *_many_tasks(folder, quick), *_plans(folder, quick)]
    note = (
        "Runs of a study of 3-D U-Nets from an empty folder to the written manifest, without the "
        "check of the study before and the report after; a run with worker processes includes "
        "their start. Overhead is what 2,000 tasks of one pass over 8 voxels take more than 200, "
        "by task, in one worker process."
    )
    return Table("studies", HEADER, rows, (note,))


@dataclass
class _Memory(Silent):
    """Memory of this process when tasks end."""

    after: list[int] = field(default_factory=list)

    def finished(self, record: TaskRecord, reused: bool) -> None:
        self.after.append(psutil.Process().memory_info().rss)


def _side_by_side(folder: Path, quick: bool) -> Iterator[tuple[str, str, str]]:
    """One process with two threads, one worker, two workers."""
    size, steps, cases = (12, 2, 2) if quick else (40, 120, 4)
    methods = [_path(steps + more) for more in range(3)]
    study = _study(folder, cases, size, methods, widths=[8, 16])
    durations = {}
    for name, settings in (
        ("one process", {"workers": 0, "threads": 2}),
        ("one worker", {"workers": 1, "threads": 1}),
        ("two workers", {"workers": 2, "threads": 1}),
    ):
        asked = study.running(**settings)
        durations[name] = _seconds(asked, folder / name.replace(" ", "-"))
    one, two = durations["one worker"], durations["two workers"]
    in_process = durations["one process"]
    yield "one worker / two workers, one thread each", times(one / two), ""
    yield "one process with two threads / two workers", times(in_process / two), ""


def _many_tasks(folder: Path, quick: bool) -> Iterator[tuple[str, str, str]]:
    """The cost of a task beyond its passes, and the memory of the process that gives them out."""
    few, many = (4, 12) if quick else (200, 2000)
    durations, grown = {}, 0.0
    for count in (few, many):
        methods = [_path(1 + number) for number in range(4)]
        study = _study(folder, count // 4, 2, methods, widths=[1, 1]).running(workers=1)
        memory = _Memory()
        durations[count] = _seconds(study, folder / f"many-{count}", memory)
        if count == many:
            grown = (memory.after[-1] - memory.after[len(memory.after) // 10]) / 1e6
    per_task = (durations[many] - durations[few]) / (many - few)
    yield "overhead per task", seconds(per_task), "20 ms"
    yield f"growth of the parent over {many} tasks", f"{grown:.1f} MB", "flat"


def _plans(folder: Path, quick: bool) -> Iterator[tuple[str, str, str]]:
    """A large study: its plan, and taking it up again when nothing is done and when all is."""
    cases, networks, paths = (4, 2, 3) if quick else (100, 4, 25)
    methods = [_path(1 + number) for number in range(paths)]
    study = _study(folder, cases, 4, methods, widths=[1, 1], networks=networks)
    start = time.perf_counter()
    checked = check_study(study)
    planned = time.perf_counter() - start
    count = f"{len(checked.plan.tasks):,}"
    yield f"plan of {count} tasks", seconds(planned), "5 s"
    store = Store(folder / "large")
    Scheduler(checked, store, Silent(), True).run(_Nobody())
    start = time.perf_counter()
    Scheduler(checked, store, Silent(), True).run(_Nobody())
    yield f"resume of {count} tasks, none done", seconds(time.perf_counter() - start), "5 s"
    _finish(store)
    start = time.perf_counter()
    done = Scheduler(checked, store, Silent(), True).run(_Nobody())
    taken = time.perf_counter() - start
    assert not done.pending
    yield f"resume of {count} tasks, all done", seconds(taken), "5 s"


class _Nobody:
    """Does no task."""

    def run(self, queue: TaskQueue, started: Started) -> Iterator[TaskResult]:
        return iter(())


def _finish(store: Store) -> None:
    """Makes up the results of all tasks, as files of their own."""
    study = Study.load(store.folder.parent / "study.yaml")
    for task in check_study(study).plan.tasks:
        place = task.combination
        records, seals = [], {}
        for key, method in task.methods.items():
            name = f"maps/{place.case}/{place.model}/{method.key}"
            files = (f"{name}.nii.gz", f"{name}.json")
            for file in files:
                (store.folder / file).parent.mkdir(parents=True, exist_ok=True)
                (store.folder / file).write_bytes(b"{}")
                seals[file] = seal(store.folder / file)
            records.append(
                MapRecord(
                    case=place.case,
                    model=place.model,
                    target=place.slug,
                    label=method.key,
                    method=method.name,
                    file=files[0],
                    sidecar=files[1],
                    key=key,
                )
            )
        outcome = TaskOutcome(task=task_record(task, "done"), maps=records, seals=seals)
        outcome.write(store.folder)


def _seconds(study: Study, output: Path, listener: Silent | None = None) -> float:
    """The duration of a run, as its manifest says."""
    run = run_study(study, output=output, listener=listener)
    assert run.exit_code == 0, run.failed
    return run.manifest.seconds


def _path(steps: int) -> dict[str, Any]:
    """Integrated gradients, which share nothing with those of other numbers of steps."""
    return {"name": "integrated_gradients", "steps": steps, "label": f"ig{steps}"}


def _study(
    folder: Path,
    cases: int,
    size: int,
    methods: list[dict[str, Any]],
    widths: list[int],
    networks: int = 1,
) -> Study:
    """A study of random volumes."""
    draw = np.random.default_rng(0)
    network = unet3d(classes=2, widths=widths)
    with torch.no_grad():
        network.head.bias[1] += 10.0  # class 1 is predicted everywhere
    save_file(network.state_dict(), folder / "net.safetensors")
    named = [f"c{number:04d}" for number in range(cases)]
    for name in named:
        voxels = draw.normal(size=(size, size, size)).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), folder / f"{name}.nii.gz")
    study = {
        "cases": [{"id": name, "image": f"{name}.nii.gz"} for name in named],
        "models": [
            {
                "name": f"net{number}",
                "factory": "voxplain.zoo:unet3d",
                "arguments": {"widths": widths, "classes": 2},
                "weights": "net.safetensors",
            }
            for number in range(networks)
        ],
        "target": {"kind": "pixelwise", "label": 1},
        "methods": methods,
        "output": "large",
    }
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(study))
    return Study.load(file)
