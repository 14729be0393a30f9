"""Everything that can be wrong with a request, found before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from voxplain.attribution import Prediction
from voxplain.image import Image
from voxplain.records.manifest import CaseRecord
from voxplain.study.config.cases import CaseConfig
from voxplain.study.config.study import StudyConfig
from voxplain.study.planning.inputs import LoadedModel, content_sha256, load_model, read_references
from voxplain.study.planning.plan import Plan
from voxplain.study.planning.preflight import CombinationId, Preflight
from voxplain.study.planning.tasks import Combination


@dataclass(frozen=True, eq=False)
class CheckedStudy:
    """A study that can run.

    Attributes:
        study: As written.
        cases: With ids and absolute paths.
        records: What the manifest says of each case, by id.
        models: With weights, by name.
        references: Other images that methods compare with.
        reference_sha256: Their hashes.
        combinations: What is explained, in the order of the run.
        plan: The tasks.
        predictions: Those that were made on the way.
    """

    study: StudyConfig
    cases: Mapping[str, CaseConfig]
    records: Mapping[str, CaseRecord]
    models: Mapping[str, LoadedModel]
    references: Sequence[Image]
    reference_sha256: Sequence[str]
    combinations: Sequence[Combination]
    plan: Plan
    predictions: Mapping[CombinationId, Prediction]


def check_study(study: StudyConfig, *, trust: bool = False) -> CheckedStudy:
    """Reads every image, loads every network, asks each once, and plans the tasks.

    A target that fits no case is an error; one that fits some leaves the others to the run, where
    they fail by themselves.

    Args:
        study: What is asked for.
        trust: Whether files that run code may be opened.

    Raises:
        VoxplainError: With the place in front of the sentence.
    """
    cases = {str(case.id): case for case in study.expanded_cases()}
    models = {config.name: load_model(config, study, trust) for config in study.models}
    references = read_references(study, cases)
    hashes = [content_sha256(image) for image in references]
    preflight = Preflight(study, cases, models, hashes)
    for name, case in cases.items():
        preflight.visit(name, case)
    preflight.finish()
    return CheckedStudy(
        study=study,
        cases=cases,
        records=preflight.records,
        models=models,
        references=references,
        reference_sha256=hashes,
        combinations=preflight.combinations,
        plan=Plan(tuple(preflight.tasks), tuple(preflight.evaluations)),
        predictions=preflight.predictions,
    )
