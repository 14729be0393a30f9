"""Checking a study before anything is written, and the plan that comes of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from voxplain.attribution import Prediction
from voxplain.engine.method import Method
from voxplain.image import Image
from voxplain.records.candidates import Candidates, read_candidates
from voxplain.records.manifest import CaseRecord
from voxplain.study.config.cases import CaseConfig
from voxplain.study.config.study import StudyConfig
from voxplain.study.planning.analysis_task import AnalysisTask, AnyTask, plan_analyses
from voxplain.study.planning.evaluation_task import EvaluationTask
from voxplain.study.planning.exits import no_exit
from voxplain.study.planning.expansion import Expansion
from voxplain.study.planning.images import ImageSource, content_sha256, read_case, reference_cases
from voxplain.study.planning.messages import collected_warnings
from voxplain.study.planning.network_calls import identified
from voxplain.study.planning.networks import LoadedModel, NetworkSource
from voxplain.study.planning.preflight import Preflight
from voxplain.study.planning.references import ReferenceCount
from voxplain.study.planning.tasks import Combination, CombinationId, Task


@dataclass(frozen=True)
class Plan:
    """What a study will do.

    Attributes:
        tasks: Explanations, in the order in which they run.
        evaluations: Of the maps of each combination, once they are written.
        analyses: Of networks over all cases.
    """

    tasks: tuple[Task, ...]
    evaluations: tuple[EvaluationTask, ...] = ()
    analyses: tuple[AnalysisTask, ...] = ()

    @property
    def all_tasks(self) -> tuple[AnyTask, ...]:
        """Explanations, evaluations and analyses."""
        return (*self.tasks, *self.evaluations, *self.analyses)

    @property
    def passes(self) -> int:
        """Passes of all tasks."""
        return sum(task.passes for task in self.all_tasks)

    def tasks_of(self, combination: Combination) -> list[Task]:
        """The explanations of a combination."""
        return self._tasks[combination.id]

    def methods_of(self, combination: Combination) -> dict[str, Method]:
        """The methods of a combination, by the hash of what determines their maps."""
        tasks = self.tasks_of(combination)
        return {key: method for task in tasks for key, method in task.methods.items()}

    def evaluations_of(self, combination: Combination) -> list[EvaluationTask]:
        """The evaluation of a combination, if there is one."""
        return self._evaluations[combination.id]

    @cached_property
    def _tasks(self) -> dict[CombinationId, list[Task]]:
        return _by_combination(self.tasks)

    @cached_property
    def _evaluations(self) -> dict[CombinationId, list[EvaluationTask]]:
        return _by_combination(self.evaluations)


T = TypeVar("T", Task, EvaluationTask)


def _by_combination(tasks: Iterable[T]) -> dict[CombinationId, list[T]]:
    found: dict[CombinationId, list[T]] = defaultdict(list)
    for task in tasks:
        found[task.combination.id].append(task)
    return found


@dataclass(frozen=True, eq=False)
class CheckedStudy:
    """A study that can run.

    Attributes:
        study: As written.
        cases: With ids and absolute paths.
        records: What the manifest says of each case, by id.
        models: With weights, by name.
        reference_sources: Where the images come from that methods compare with.
        references: Those images.
        combinations: What is explained, in the order of the run.
        plan: The tasks.
        predictions: Those that the check had to make.
        seconds: What these took for one voxel, by network.
        candidates: What predictions hold that targets were made for, by the hash of everything that
            determines it.
        explains: Whether the methods are going to explain; False where their maps are there.
    """

    study: StudyConfig
    cases: Mapping[str, CaseConfig]
    records: Mapping[str, CaseRecord]
    models: Mapping[str, LoadedModel]
    reference_sources: Sequence[ImageSource]
    references: Sequence[Image]
    combinations: Sequence[Combination]
    plan: Plan
    predictions: Mapping[CombinationId, Prediction]
    seconds: Mapping[str, float]
    shapes: Mapping[tuple[str, str], tuple[int, ...]]
    candidates: Mapping[str, Candidates] = field(default_factory=dict)

    def image_source(self, case: str) -> ImageSource:
        """Where the image of a case comes from."""
        return ImageSource(self.cases[case], self.records[case].image_sha256)


def check_study(
    study: StudyConfig,
    *,
    trust: bool = False,
    explains: bool = True,
    probes: Mapping[str, tuple[int, ...]] | None = None,
    candidates: Mapping[str, Candidates] | None = None,
) -> CheckedStudy:
    """Reads every image, loads and runs every network once, and plans the tasks.

    A target that fits no case and network is an error. One that fits only some of them is planned
    for all, and fails during the run where it does not fit.

    Args:
        study: What to do.
        trust: Whether files that run code may be opened.
        explains: Whether the methods are going to explain; False where their maps are there.
        probes: Shapes of the patterns that an earlier run told networks apart with, by name; those
            of the first image where it had none.
        candidates: What an earlier run has found in predictions; if None, that in the folder of the
            study.

    Raises:
        VoxplainError: With the place in front of the sentence.
    """
    with no_exit():
        known = read_candidates(study.folder) if candidates is None else candidates
        return _checked(study, trust, explains, probes or {}, Expansion(known))


def _checked(
    study: StudyConfig,
    trust: bool,
    explains: bool,
    probes: Mapping[str, tuple[int, ...]],
    expansion: Expansion,
) -> CheckedStudy:
    cases = {str(case.id): case for case in study.expanded_cases()}
    sources = [NetworkSource.of(config, study, trust) for config in study.models]
    with collected_warnings([]):  # they are given when the case is planned
        first = read_case(next(iter(cases.values())))
    limit = study.execution.timeout
    models = {
        source.config.name: identified(source.load(), first, limit, probes.get(source.config.name))
        for source in sources
    }
    reference_configs = reference_cases(study, cases)
    references = [read_case(case) for case in reference_configs]
    hashes = [content_sha256(image) for image in references]
    preflight = Preflight(study, cases, models, ReferenceCount(hashes), expansion)
    for name, case in cases.items():
        preflight.visit(name, case)
    preflight.finish()
    if explains:
        preflight.references.require()
    analyses = tuple(plan_analyses(study, models.values(), cases, preflight.records))
    return CheckedStudy(
        study=study,
        cases=cases,
        records=preflight.records,
        models=models,
        reference_sources=[*map(ImageSource, reference_configs, hashes)],
        references=references,
        combinations=preflight.combinations,
        plan=Plan(tuple(preflight.tasks), tuple(preflight.evaluations), analyses),
        predictions=preflight.predictions,
        seconds=preflight.seconds,
        shapes=preflight.shapes,
        candidates=expansion.candidates,
    )
