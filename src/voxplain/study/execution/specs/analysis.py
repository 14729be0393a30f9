"""The analysis of a network over all cases of a study, as a task."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from voxplain.analyses import RESULT, AnalysisInputs
from voxplain.concepts.bank import ConceptSpec
from voxplain.records.manifest import TaskRecord
from voxplain.records.outcome import seal
from voxplain.study.config.concepts import bank_of, concept_files
from voxplain.study.execution.cohorts import cohort_of
from voxplain.study.execution.privacy import Redactor
from voxplain.study.execution.progress import TaskListener
from voxplain.study.execution.resources import LoadedResources
from voxplain.study.execution.specs.result import TaskResult
from voxplain.study.execution.specs.spec import TaskSpec, task_record
from voxplain.study.planning.analysis_task import AnalysisTask
from voxplain.study.planning.checked_study import CheckedStudy
from voxplain.study.planning.images import ImageSource
from voxplain.study.planning.networks import NetworkSource
from voxplain.study.planning.tasks import CombinationId, TaskId
from voxplain.study.planning.time_limit import TimeLimit


@dataclass(frozen=True, kw_only=True)
class AnalysisSpec(TaskSpec):
    """An analysis of one network.

    Attributes:
        run: The run directory.
        task: What is done.
        images: Where the images of the cases come from.
        network: Where the network comes from.
        concepts: What concepts are made of.
        seconds: That the analysis may take for each case; None for no limit.
    """

    run: Path
    task: AnalysisTask
    images: tuple[ImageSource, ...]
    network: NetworkSource
    concepts: tuple[ConceptSpec, ...]
    seconds: float | None

    @classmethod
    def of(cls, checked: CheckedStudy, task: AnalysisTask, run: Path) -> AnalysisSpec:
        """The spec of an analysis of a study."""
        return cls(
            run=run.absolute(),
            task=task,
            images=tuple(map(checked.image_source, task.cases)),
            network=checked.models[task.model].source,
            concepts=checked.study.concepts,
            seconds=checked.study.execution.timeout,
        )

    @property
    def id(self) -> TaskId:
        """That of the task."""
        return self.task.id

    @property
    def place(self) -> CombinationId:
        """That of the task."""
        return self.task.place

    @property
    def cases(self) -> tuple[str, ...]:
        """All cases of the study."""
        return self.task.cases

    @property
    def folder(self) -> Path:
        """The run directory."""
        return self.run

    @property
    def limit(self) -> float | None:
        """The limit of the study for every case."""
        return None if self.seconds is None else self.seconds * len(self.images)

    @property
    def private(self) -> Redactor:
        """Filters what is written: no names of source files, and no paths."""
        files = [file for source in self.images for file in source.files]
        cases = [(str(each.case.id), each.case.patient or "") for each in self.images]
        files += concept_files(self.concepts, cases, self.network.base)
        return Redactor([*files, *self.network.files], self.network.base)

    @property
    def pending(self) -> TaskRecord:
        """That of the task."""
        return task_record(self.task)

    def load(self, resources: LoadedResources) -> None:
        """The network; images are read one after another while it works."""
        resources.opened(self.network, [self.network])

    def perform(
        self, resources: LoadedResources, listener: TaskListener, limited: TimeLimit
    ) -> TaskResult:
        """Writes the files of the analysis into a folder of their own."""
        loaded = resources.opened(self.network, [self.network])
        place = self.run / self.task.folder
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        with limited(self.limit):
            self.task.analysis.perform(
                AnalysisInputs(
                    model=loaded.model.for_task(self.task.seed),
                    cohort=cohort_of(self.images, loaded),
                    concepts=bank_of(self.concepts, self.network.base),
                    target=self.task.target,
                    folder=place,
                    seed=self.task.seed,
                    progress=listener.passed,
                )
            )
        if not (place / RESULT).is_file():
            raise ValueError(f"the analysis {self.task.analysis.key} has written no {RESULT}")
        sealed = {
            file.relative_to(self.run).as_posix(): seal(file)
            for file in sorted(place.rglob("*"))
            if file.is_file()
        }
        return TaskResult(self.id, analyses=(self.task.record,), seals=sealed)
