"""The evaluation of a run that is already there: its study is put together again from its files."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxplain.engine.method import parse_method
from voxplain.errors import ConfigError, ModelError, VoxplainError, VoxplainWarning
from voxplain.metrics import BaseMetric
from voxplain.metrics.cross_case import completed
from voxplain.records.candidates import read_candidates
from voxplain.records.manifest import CaseRecord, Manifest
from voxplain.records.scores import Score, Scores
from voxplain.study.config.cases import CaseConfig
from voxplain.study.config.study import StudyConfig
from voxplain.study.config.yaml_files import read_mapping
from voxplain.study.execution.earlier_results import ScoreCache
from voxplain.study.execution.evaluator import finished_scores, maps_of
from voxplain.study.execution.executors.in_process import InProcessExecutor
from voxplain.study.execution.progress import Listener, OfWorker, Silent
from voxplain.study.execution.queue import TaskQueue
from voxplain.study.execution.resolved import KEPT_FIELDS
from voxplain.study.execution.resources import CombinationSpec, LoadedResources
from voxplain.study.execution.specs import EvaluationSpec, TaskResult, TaskSpec
from voxplain.study.execution.store import STUDY, Store
from voxplain.study.planning.checked_study import CheckedStudy, Plan, check_study
from voxplain.study.planning.evaluation_task import EvaluationTask
from voxplain.study.planning.networks import NetworkSource

_NETWORK_FIELDS = ("factory", "file", "bundle", "nnunet")
_NOT_KEPT = ("weights_sha256", "weights", "file", "bundle", "nnunet")
_GIVE_STUDY = "give the study file that made the run: --study study.yaml"


@dataclass(frozen=True)
class Reevaluation:
    """The result of an evaluation of a run.

    Attributes:
        scores: The new ones; the table of the run holds those of before too.
        failures: What failed, by case and network, in words.
    """

    scores: Scores
    failures: tuple[str, ...]


def study_of_run(folder: Path, network: Mapping[str, Any]) -> StudyConfig:
    """The study of a run, as far as its directory keeps it.

    Images and references are the copies in the run directory, which are exact to a tenth of a
    percent of the intensity range.

    Args:
        folder: The run directory.
        network: Where the network is: ``weights``, ``factory``, ``file``, ``bundle``,
            ``nnunet``.

    Raises:
        ConfigError: If the run does not keep enough, in words.
    """
    resolved, manifest = read_mapping(folder / STUDY), Store(folder).manifest()
    if network and len(resolved["models"]) > 1:
        raise ConfigError(
            f"the run has {len(resolved['models'])} networks, and the flags name one; {_GIVE_STUDY}"
        )
    references = [name for name in resolved["references"] if isinstance(name, str)]
    if len(references) < len(resolved["references"]):
        _warn("the run keeps no reference images that are not cases; metrics do without them")
    explained = {task.case for task in manifest.tasks}  # copies are made of these alone
    mapping = {
        "cases": [
            _case(folder, record) | _kept_fields(resolved["cases"], record.id)
            for record in manifest.cases
            if record.id in explained
        ],
        "models": [_model(model, network) for model in resolved["models"]],
        "targets": [_target(target) for target in resolved["targets"]],
        "methods": _methods(resolved["methods"]),
        "metrics": resolved.get("metrics", []),
        "randomization": resolved.get("randomization"),
        "references": references,
        "run": resolved["run"],
    }
    return StudyConfig.parse(mapping, base=folder, origin=str(folder / STUDY))


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
        study: The one that made the run, or :func:`study_of_run`.
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


def _case(folder: Path, record: CaseRecord) -> dict[str, Any]:
    reference = {"reference": str(folder / record.reference)} if record.reference else {}
    return {
        "id": record.id,
        "image": str(folder / record.image),
        "channels": [*record.channels],
        "rank": len(record.shape),
        **reference,
    }


def _kept_fields(cases: Sequence[Mapping[str, Any]], case: str) -> dict[str, Any]:
    """What the study says of a case beyond its files."""
    stated: Mapping[str, Any] = next((entry for entry in cases if entry["id"] == case), {})
    return {name: stated[name] for name in KEPT_FIELDS if name in stated}


def _model(resolved: Mapping[str, Any], network: Mapping[str, Any]) -> dict[str, Any]:
    """A network of the run with the files that were named for it."""
    # Who sent the run may have named files beside it; only those that are named now are opened.
    model = {name: value for name, value in resolved.items() if name not in _NOT_KEPT}
    if ".py:" in str(model.get("factory", "")):
        del model["factory"]
    if any(name in network for name in _NETWORK_FIELDS):
        model = {name: value for name, value in model.items() if name not in _NETWORK_FIELDS}
    model = {**model, **network}
    if "factory" in model and "<path>" in repr(model.get("arguments")):
        raise ConfigError(
            f"model {model['name']}: the run keeps no paths, and its factory takes one; "
            f"{_GIVE_STUDY}"
        )
    if not any(name in model for name in _NETWORK_FIELDS):
        raise ConfigError(
            f"model {model['name']}: the run keeps no file of its network; name it (--factory, "
            f"--file, --bundle or --nnunet), or {_GIVE_STUDY}"
        )
    return model


def _target(resolved: Mapping[str, Any]) -> Mapping[str, Any]:
    if "file:" in repr(resolved):
        kind = resolved.get("kind")
        raise ConfigError(
            f"the target {kind} reads a file that the run does not keep; {_GIVE_STUDY}"
        )
    return resolved


def _methods(resolved: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The methods that can be declared again; the maps of the others are scored all the same."""
    methods = []
    for mapping in resolved:
        try:
            parse_method(dict(mapping))
        except VoxplainError:
            name = mapping.get("label") or mapping["name"]
            _warn(f"{name} reads files that the run does not keep, so that it cannot explain again")
        else:
            methods.append(mapping)
    return methods or [{"name": "saliency"}]


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
                f"file with --weights, or {_GIVE_STUDY}"
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
                f"arguments, with which it answers otherwise; {_GIVE_STUDY}"
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
