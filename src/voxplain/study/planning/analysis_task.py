"""An analysis of one network over all cases of a study: what determines it, and what it costs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeGuard

from voxplain.analyses import Analysis
from voxplain.errors import ConfigError
from voxplain.records.manifest import AnalysisRecord, CaseRecord
from voxplain.records.names import safe
from voxplain.study.config.case_files import files_of
from voxplain.study.config.cases import CaseConfig
from voxplain.study.config.concepts import content_of
from voxplain.study.config.for_each import ForEach
from voxplain.study.config.study import StudyConfig
from voxplain.study.planning.evaluation_task import EvaluationTask
from voxplain.study.planning.networks import LoadedModel
from voxplain.study.planning.tasks import CombinationId, Task, TaskId, TaskKind, digest
from voxplain.targets import Target


@dataclass(frozen=True)
class AnalysisTask:
    """An analysis of one network, of one target where it needs one.

    Attributes:
        key: Hash of everything that determines the results.
        model: Name of the network.
        analysis: What is done.
        cases: Ids of the cases.
        target: What is explained; None where none is needed.
        passes: Estimated passes through the network.
        forwards: How many of them are forwards without a backward pass.
        streams: What they are for, in words.
        seed: Of random draws.
    """

    kind: ClassVar[TaskKind] = "analysis"

    key: str
    model: str
    analysis: Analysis
    cases: tuple[str, ...]
    target: Target | None
    passes: int
    forwards: int
    streams: tuple[str, ...]
    seed: int

    @classmethod
    def of(
        cls,
        analysis: Analysis,
        model: str,
        target: Target | None,
        cases: Sequence[str],
        facts: Mapping[str, Any],
        seed: int,
    ) -> AnalysisTask:
        """The task of an analysis.

        Args:
            analysis: What is done.
            model: Name of the network.
            target: What is explained, if anything.
            cases: Ids of the cases.
            facts: Everything else that determines the results: images, labels, network, concepts.
            seed: Of the study.
        """
        cost = analysis.cost(len(cases))
        declared = analysis.model_dump(mode="json")
        named = target.model_dump(mode="json") if target else None
        key = digest([analysis.revision, declared, named, model, list(cases), facts, seed])
        return cls(
            key=key,
            model=model,
            analysis=analysis,
            cases=tuple(cases),
            target=target,
            passes=cost.passes,
            forwards=cost.forwards,
            streams=(cost.words,),
            seed=int(digest([seed, declared, named])[:8], 16),
        )

    @property
    def place(self) -> CombinationId:
        """No single case, the network, and the target or nothing."""
        return ("", self.model, self.target_slug)

    @property
    def target_in_words(self) -> str:
        """What is explained; empty where nothing is."""
        return str(self.target) if self.target else ""

    @property
    def target_slug(self) -> str:
        """The target in file names; empty without one."""
        return self.target.slug if self.target else ""

    @property
    def id(self) -> TaskId:
        """What tells it from every other task of the run."""
        return (self.kind, self.model, self.target_slug, self.analysis.key)

    @property
    def labels(self) -> list[str]:
        """The name of the analysis in results."""
        return [self.analysis.key]

    @property
    def folder(self) -> str:
        """Of its files, within the run."""
        target = f"_target-{self.target_slug}" if self.target_slug else ""
        return f"analyses/{safe(self.model)}/{self.analysis.key}{target}"

    @property
    def record(self) -> AnalysisRecord:
        """What the manifest says of its results."""
        return AnalysisRecord(
            model=self.model,
            target=self.target_slug,
            name=self.analysis.name,
            label=self.analysis.key,
            folder=self.folder,
            cases=list(self.cases),
            key=self.key,
        )


AnyTask = Task | EvaluationTask | AnalysisTask


def plan_analyses(
    study: StudyConfig,
    models: Iterable[LoadedModel],
    cases: Mapping[str, CaseConfig],
    records: Mapping[str, CaseRecord],
) -> Iterator[AnalysisTask]:
    """The analyses of every network that is explained, of every target where they need one.

    Args:
        study: What is asked for.
        models: The networks of the study.
        cases: With their files, by id.
        records: What the manifest says of them, by id.

    Raises:
        ConfigError: If a target is not the same for all cases.
    """
    explained = [loaded for loaded in models if not loaded.config.only_compared]
    fixed = [each for each in study.all_targets if _is_same_for_all(each)]
    for declared in study.analyses:
        analysis = declared.asked_about(fixed)
        asked: list[Target | None] = [None]
        if analysis.needs_target:
            asked = [_same_for_all(each) for each in study.all_targets]
        for loaded in explained:
            facts = _facts(study, loaded, cases, records)
            for target in asked:
                yield AnalysisTask.of(
                    analysis, loaded.config.name, target, [*records], facts, study.execution.seed
                )


def _is_same_for_all(declared: Target | ForEach) -> TypeGuard[Target]:
    return not isinstance(declared, ForEach) and not any(files_of(declared))


def _same_for_all(declared: Target | ForEach) -> Target:
    """A target that means the same in every case.

    Raises:
        ConfigError: If it stands for what each prediction holds, or names files.
    """
    if isinstance(declared, ForEach):
        raise ConfigError(
            f"analyses: the target {declared} differs from case to case; analyses over cases need "
            "one such as pixelwise, class or volume"
        )
    if any(files_of(declared)):
        raise ConfigError(
            f"analyses: the target {declared} names a file of a case; analyses over cases need "
            "one without files"
        )
    return declared


def _facts(
    study: StudyConfig,
    loaded: LoadedModel,
    cases: Mapping[str, CaseConfig],
    records: Mapping[str, CaseRecord],
) -> dict[str, Any]:
    """What determines the results of an analysis beside its parameters and its target."""
    patients = [(name, case.patient or name) for name, case in cases.items()]
    return {
        "images": [record.image_sha256 for record in records.values()],
        "labels": [record.reference_sha256 for record in records.values()],
        "patients": [record.patient for record in records.values()],
        "facts": [[case.truth, dict(case.facts)] for case in cases.values()],
        "concepts": content_of(study.concepts, patients, study.base),
        "preprocess": [step.model_dump(mode="json") for step in loaded.config.preprocess],
        "model": loaded.facts.model_dump(mode="json", exclude={"name"}),
        "network": loaded.identity,
    }
