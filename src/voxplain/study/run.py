"""The run of a study: what is missing is computed, and a task that fails leaves the others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from voxplain.errors import ConfigError
from voxplain.metrics.cross_case import completed
from voxplain.records.candidates import read_candidates
from voxplain.records.folder import refuse_links
from voxplain.records.manifest import Manifest, TaskRecord
from voxplain.records.outcome import scores_of
from voxplain.report import render
from voxplain.study.config.clusters import SlurmCluster
from voxplain.study.config.study import StudyConfig
from voxplain.study.execution.executors import Executor
from voxplain.study.execution.executors.cluster import cluster_executor
from voxplain.study.execution.executors.in_process import InProcessExecutor
from voxplain.study.execution.executors.local import LocalExecutor, workers_of
from voxplain.study.execution.notice import notify
from voxplain.study.execution.progress import Listener, OfWorker, Silent
from voxplain.study.execution.resources import LoadedResources
from voxplain.study.execution.scheduler import Scheduler
from voxplain.study.execution.selection import Selection
from voxplain.study.execution.store import Store
from voxplain.study.planning.checked_study import CheckedStudy, check_study


@dataclass(frozen=True)
class Run:
    """A run: finished, stopped, or still going on.

    Attributes:
        folder: The run directory.
        manifest: Its cases, models, tasks, predictions and maps.
        selection: What this call was asked to do.
    """

    folder: Path
    manifest: Manifest
    selection: Selection = field(default_factory=Selection)

    @classmethod
    def load(cls, folder: str | Path) -> Run:
        """The run in a folder, as it stands now.

        Raises:
            ConfigError: If there is none.
        """
        return cls(Path(folder), Store(Path(folder)).manifest())

    @property
    def failed(self) -> list[TaskRecord]:
        """The tasks that failed, each with its reason."""
        return self.manifest.failed

    @property
    def exit_code(self) -> int:
        """0 if every task that was asked for is done, 1 if some failed or were not reached."""
        left = [*self.failed, *self.manifest.pending]
        return 1 if any(map(self.selection.takes, left)) else 0

    def write_report(self, *, share: bool = False) -> Path:
        """Writes the page that shows this run, also while it goes on and after it was killed.

        Args:
            share: Without images: scores and regions only.

        Returns:
            The file to open.

        Raises:
            InputError: If the folder holds no run, or a link.
        """
        refuse_links(self.folder)
        store = Store(self.folder)
        if store.is_unfinished():
            scores = scores_of(self.folder, self.manifest.tasks)
            store.write_scores(completed(scores))
        return render(self.folder, share=share)

    @property
    def maps(self) -> list[Path]:
        """The map files."""
        return [self.folder / record.file for record in self.manifest.maps]


def run_study(
    study: StudyConfig,
    *,
    resume: bool = True,
    trust: bool = False,
    output: Path | None = None,
    listener: Listener | None = None,
    selection: Selection | None = None,
) -> Run:
    """Runs a study, in worker processes unless ``run.workers`` is 0.

    Args:
        study: What to do.
        resume: Keep the results of an earlier run in the same folder that are still right.
        trust: Whether files that run code may be opened, and commands be run.
        output: Another run directory than the study says.
        listener: Callbacks.
        selection: Which of the tasks that are left to do.

    Raises:
        VoxplainError: If the study is wrong; then nothing has been written.
        KeyboardInterrupt: If somebody stopped the run; what is finished is kept.
    """
    if study.execution.notify and not trust:
        raise ConfigError("run.notify runs a command; --trust allows it")
    store = Store(output or study.folder)
    store.check()
    earlier = store.earlier() if resume else None
    probes = {model.name: model.probe for model in earlier.models} if earlier else {}
    listener, selection = listener or Silent(), selection or Selection()
    with _threads(study.execution.threads):
        candidates = read_candidates(store.folder) if resume else {}
        checked = check_study(study, trust=trust, probes=probes, candidates=candidates)
        with store.locked():
            executor, workers = _executor(checked, listener)
            scheduler = Scheduler(checked, store, listener, resume, selection)
            manifest = scheduler.run(executor, workers)
    if study.execution.notify:
        notify(study.execution.notify, store.folder, manifest)
    return Run(store.folder, manifest, selection)


def _executor(checked: CheckedStudy, listener: Listener) -> tuple[Executor, int]:
    """Where the tasks of a study run, and how many at a time."""
    run = checked.study.execution
    if run.executor != "local":
        return cluster_executor(run, listener)
    workers = workers_of(run, held_bytes(checked))
    if not workers:
        return InProcessExecutor(LoadedResources.of(checked), OfWorker(listener)), 1
    return LocalExecutor(workers, run.memory, listener), len(workers)


_IMAGES_AT_ONCE = 16
"""Image, prepared image, maps and what metrics keep of them, at most."""


def planned_workers(checked: CheckedStudy) -> int:
    """How many tasks of a study will be done at a time, on this machine or the cluster it names."""
    run = checked.study.execution
    if isinstance(run.executor, SlurmCluster):
        return run.executor.slurm.jobs
    if run.executor != "local":
        return run.workers if isinstance(run.workers, int) and run.workers else 1
    return len(workers_of(run, held_bytes(checked))) or 1


def held_bytes(checked: CheckedStudy) -> float:
    """About what a worker holds of networks and images."""
    shapes = [(len(case.channels), *case.shape) for case in checked.records.values()]
    largest = max(torch.Size(shape).numel() for shape in shapes)
    parameters = sum(loaded.facts.parameters for loaded in checked.models.values())
    return 4.0 * (parameters + _IMAGES_AT_ONCE * largest)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """A block in which torch has so many threads, as the workers do: other numbers round else."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
