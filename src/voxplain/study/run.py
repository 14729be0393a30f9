"""The run of a study: what is missing is computed, and a task that fails leaves the others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from voxplain.records.folder import refuse_links
from voxplain.records.manifest import Manifest, TaskRecord
from voxplain.report import render
from voxplain.study.config.study import StudyConfig
from voxplain.study.execution.executors.local import LocalExecutor
from voxplain.study.execution.progress import Listener, Silent
from voxplain.study.execution.resources import LoadedResources
from voxplain.study.execution.scheduler import Scheduler
from voxplain.study.execution.store import Store
from voxplain.study.planning.checked_study import check_study


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: The run directory.
        manifest: Its cases, models, tasks, predictions and maps.
    """

    folder: Path
    manifest: Manifest

    @classmethod
    def load(cls, folder: str | Path) -> Run:
        """The run in a folder.

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
        """0 if every task is done, 1 if some failed or were not reached."""
        return 1 if self.failed or self.manifest.pending else 0

    def write_report(self, *, share: bool = False) -> Path:
        """Writes the page that shows this run.

        Args:
            share: Without images: scores and regions only.

        Returns:
            The file to open.

        Raises:
            InputError: If the folder holds no run, or a link.
        """
        refuse_links(self.folder)
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
) -> Run:
    """Runs a study in this process.

    Args:
        study: What to do.
        resume: Keep the results of an earlier run in the same folder that are still right.
        trust: Whether files that run code may be opened.
        output: Another run directory than the study says.
        listener: Callbacks.

    Raises:
        VoxplainError: If the study is wrong; then nothing has been written.
    """
    store = Store(output or study.folder)
    store.check()
    earlier = store.earlier() if resume else None
    probes = {model.name: model.probe for model in earlier.models} if earlier else {}
    checked = check_study(study, trust=trust, probes=probes)
    with store.locked():
        listener, resources = listener or Silent(), LoadedResources.of(checked)
        scheduler = Scheduler(checked, store, listener, resume, resources)
        manifest = scheduler.run(LocalExecutor(resources, listener))
    return Run(store.folder, manifest)
