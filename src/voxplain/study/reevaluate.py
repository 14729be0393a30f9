"""The evaluation of a run that is already there."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxplain.errors import ConfigError, ModelError, VoxplainWarning
from voxplain.metrics import BaseMetric
from voxplain.metrics.cross_case import completed
from voxplain.records.candidates import read_candidates
from voxplain.records.manifest import Manifest
from voxplain.records.scores import Score, Scores
from voxplain.study.config.cases import CaseConfig
from voxplain.study.config.study import StudyConfig
from voxplain.study.execution.earlier_results import ScoreCache
from voxplain.study.execution.evaluator import finished_scores, maps_of
from voxplain.study.execution.executors.in_process import InProcessExecutor
from voxplain.study.execution.progress import Listener, OfWorker, Silent
from voxplain.study.execution.queue import TaskQueue
from voxplain.study.execution.resources import CombinationSpec, LoadedResources
from voxplain.study.execution.specs.evaluation import EvaluationSpec
from voxplain.study.execution.specs.result import TaskResult
from voxplain.study.execution.specs.spec import TaskSpec
from voxplain.study.execution.store import Store
from voxplain.study.kept_study import GIVE_STUDY
from voxplain.study.planning.checked_study import CheckedStudy, Plan, check_study
from voxplain.study.planning.evaluation_task import EvaluationTask
from voxplain.study.planning.networks import NetworkSource


@dataclass(frozen=True)
class Reevaluation:
    """The result of an evaluation of a run.

    Attributes:
        scores: The new ones; the table of the run holds those of before too.
        failures: What failed, by case and network, in words.
    """

    scores: Scores
    failures: tuple[str, ...]


def reevaluation_of(
    study: StudyConfig,
    metrics: Sequence[BaseMetric],
    reference: Path | None,
    label: int | None = None,
    ignore: int | None = None,
) -> StudyConfig:
    """The same study with other metrics (if any) and another reference (if any).

    Args:
        study: Of the run.
        metrics: In place of those of the study.
        reference: A label mask on the grid of the cases; ``*`` stands for the id of a case.
        label: The label in it that maps are compared with.
        ignore: The label in it that marks voxels of which it says nothing.

    Raises:
        ConfigError: If a reference does not exist, or one file is named for several cases.
    """
    update: dict[str, Any] = {"metrics": tuple(metrics), "randomization": None} if metrics else {}
    if reference is not None:
        cases = study.expanded_cases()
        if len(cases) > 1 and "*" not in str(reference):
            raise ConfigError(
                f"one reference for {len(cases)} cases; write a * in the file name for the id of "
                "the case"
            )
        update["cases"] = tuple(_with_reference(case, reference, label, ignore) for case in cases)
    return study.model_copy(update=update)


def evaluate_run(
    folder: Path, study: StudyConfig, *, trust: bool = False, listener: Listener | None = None
) -> Reevaluation:
    """Evaluates the maps of a run with the metrics of a study, and adds the scores to its table.

    Args:
        folder: The run directory.
        study: The one that made the run, or :func:`~voxplain.study.kept_study.study_of_run`.
        trust: Whether files that run code may be opened.
        listener: Callbacks.

    Raises:
        VoxplainError: If the study does not fit the run.
    """
    store, listener = Store(folder), listener or Silent()
    manifest = store.manifest()
    _require_same_networks(study, manifest, trust)
    probes = {model.name: model.probe for model in manifest.models}
    known = read_candidates(folder)
    checked = check_study(study, trust=trust, explains=False, probes=probes, candidates=known)
    _require_same_answers(checked, manifest)
    _require_same_images(checked, manifest, copies=study.base == folder.absolute())
    evaluations = checked.plan.evaluations
    listener.planned(Plan((), evaluations), 1)
    tasks = {task.id: task for task in evaluations}
    failures: list[str] = []
    with store.locked():
        scores = {task.id: _finished(task, manifest, folder) for task in evaluations}
        waiting = [task for task in evaluations if scores[task.id] is None]
        specs = list(_specs(waiting, checked, manifest, folder))
        executor = InProcessExecutor(LoadedResources.of(checked), OfWorker(listener))

        def started(spec: TaskSpec, worker: int) -> None:
            listener.started(tasks[spec.id], worker)

        for result in executor.run(TaskQueue(specs, [0.0] * len(specs)), started):
            if result.log:
                listener.failed(result.log)
            scores[result.id] = result.scores
            failures += _failures(result)
        new = Scores.joined(table for table in scores.values() if table is not None)
        table = completed(merged(store.scores(), new))
        store.write_scores(table)
    return Reevaluation(Scores(table.rows[len(table) - len(new) :]), tuple(failures))


def merged(before: Scores, new: Scores) -> Scores:
    """A table with new scores in place of those they replace; the new ones come last."""
    replaced = {_identity(row) for row in new}
    return Scores(tuple(row for row in before if _identity(row) not in replaced)) + new


def _finished(task: EvaluationTask, manifest: Manifest, folder: Path) -> Scores | None:
    """The scores of an evaluation that was done before, if they are right as it stands now."""
    cache = ScoreCache(folder, task.combination.key)
    return finished_scores(task, maps_of(manifest, task.combination), cache)


def _specs(
    tasks: Sequence[EvaluationTask],
    checked: CheckedStudy,
    manifest: Manifest,
    folder: Path,
) -> Iterator[EvaluationSpec]:
    for task in tasks:
        yield EvaluationSpec(
            common=CombinationSpec.of(checked, task.combination, folder),
            task=task,
            declared=checked.plan.methods_of(task.combination),
            maps=tuple(maps_of(manifest, task.combination)),
        )


def _failures(result: TaskResult) -> list[str]:
    """Why an evaluation failed, with its case and network; its warnings are given now."""
    for text in result.warnings:
        _warn(text)
    _, case, model, _ = result.id
    return [f"{case} · {model}: {result.reason}"] if result.reason else []


def _identity(row: Score) -> tuple[str, ...]:
    parameters = repr(sorted(row.parameters.items()))
    return (row.case, row.model, row.target, row.method, row.metric, parameters)


def _with_reference(
    case: CaseConfig, reference: Path, label: int | None, ignore: int | None
) -> CaseConfig:
    file = Path(str(reference.absolute()).replace("*", str(case.id)))
    if not file.exists():
        raise ConfigError(f"there is no file {file}, the reference of case {case.id}")
    update = {"reference": file, "reference_label": label, "reference_ignore": ignore}
    return case.model_copy(update=update)


def _require_same_networks(study: StudyConfig, manifest: Manifest, trust: bool) -> None:
    weights = {record.name: record.weights_sha256 for record in manifest.models}
    for config in study.models:
        if config.only_compared and config.name not in weights:
            continue  # it can join later
        if config.name not in weights:
            raise ModelError(f"model {config.name}: the run has only {', '.join(weights)}")
        facts = NetworkSource.of(config, study, trust).load().facts
        if facts.weights_sha256 != weights[config.name]:
            raise ModelError(
                f"model {config.name}: its weights are not those that were explained; name their "
                f"file with --weights, or {GIVE_STUDY}"
            )


def _require_same_answers(checked: CheckedStudy, manifest: Manifest) -> None:
    """Refuses networks that have the weights of the run and answer otherwise."""
    before = {record.name: record for record in manifest.models}
    for name, loaded in checked.models.items():
        record = before.get(name)
        known = record is not None and record.fingerprint and loaded.probe == record.probe
        if record is not None and known and loaded.fingerprint != record.fingerprint:
            raise ModelError(
                f"model {name}: it has the weights that were explained and other code or "
                f"arguments, with which it answers otherwise; {GIVE_STUDY}"
            )


def _require_same_images(checked: CheckedStudy, manifest: Manifest, copies: bool) -> None:
    if copies:
        _warn("the images are the copies in the run directory; --study takes the originals")
        return
    images = {record.id: record.image_sha256 for record in manifest.cases}
    for case, record in checked.records.items():
        if images.get(case, record.image_sha256) != record.image_sha256:
            raise ConfigError(f"case {case}: the image is not the one that was explained")


def _warn(text: str) -> None:
    warnings.warn(text, VoxplainWarning, stacklevel=3)
