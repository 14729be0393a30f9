"""Judging a run that is already there: its study found again, its maps judged as they lie."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxplain.engine.method import parse_method
from voxplain.errors import ConfigError, ModelError, VoxplainError, VoxplainWarning
from voxplain.metrics import Metric
from voxplain.metrics.cross_case import completed
from voxplain.records.manifest import CaseRecord, Manifest
from voxplain.records.scores import Score, Scores
from voxplain.study.config.cases import CaseConfig
from voxplain.study.config.study import StudyConfig
from voxplain.study.config.yaml_files import read_mapping
from voxplain.study.execution.evaluation_inputs import evaluation_inputs
from voxplain.study.execution.evaluator import Evaluator, left_out, maps_of, maps_on_image_grid
from voxplain.study.execution.privacy import Redactor
from voxplain.study.execution.progress import Listener, Silent
from voxplain.study.execution.resolved import KNOWN
from voxplain.study.execution.store import STUDY, Store
from voxplain.study.execution.time_limit import reason_of
from voxplain.study.planning.checked_study import CheckedStudy, check_study
from voxplain.study.planning.evaluation_task import EvaluationTask
from voxplain.study.planning.inputs import load_model, read_case, sources
from voxplain.study.planning.plan import Plan

_PLACES = ("factory", "file", "bundle")
_GIVE_STUDY = "give the study file that made the run: --study study.yaml"


@dataclass(frozen=True)
class Reevaluation:
    """What came of it.

    Attributes:
        scores: The new ones; the table of the run holds those of before too.
        failures: What failed, by subject, in words.
    """

    scores: Scores
    failures: tuple[str, ...]


def study_of_run(folder: Path, found: Mapping[str, Any]) -> StudyConfig:
    """The study of a run, as far as its directory keeps it, with the network found again.

    Images and references are the copies in the run directory, which are exact to a tenth of a
    percent of the intensity range.

    Args:
        folder: The run directory.
        found: Where the network is: ``weights``, ``factory``, ``file``, ``bundle``.

    Raises:
        ConfigError: In words, what the run does not keep.
    """
    resolved, manifest = read_mapping(folder / STUDY), Store(folder).manifest()
    if found and len(resolved["models"]) > 1:
        raise ConfigError(
            f"the run has {len(resolved['models'])} networks, and the flags name one; {_GIVE_STUDY}"
        )
    dropped = [name for name in resolved["references"] if not isinstance(name, str)]
    if dropped:
        _say("the run keeps no reference images that are not cases; metrics do without them")
    mapping = {
        "cases": [
            _case(folder, record) | _known(resolved["cases"], record.id)
            for record in manifest.cases
        ],
        "models": [_model(model, found) for model in resolved["models"]],
        "targets": [_kept(target) for target in resolved["targets"]],
        "methods": _methods(resolved["methods"]),
        "metrics": resolved.get("metrics", []),
        "randomization": resolved.get("randomization"),
        "references": [name for name in resolved["references"] if isinstance(name, str)],
        "run": resolved["run"],
    }
    return StudyConfig.parse(mapping, base=folder, origin=str(folder / STUDY))


def reevaluation_of(
    study: StudyConfig, metrics: Sequence[Metric], reference: Path | None, label: int | None = None
) -> StudyConfig:
    """The same study with other metrics (if any) and another reference (if any).

    Args:
        study: Of the run.
        metrics: In place of those of the study.
        reference: A label mask on the grid of the cases; ``*`` stands for the id of a case.
        label: The label in it that is meant.
    """
    update: dict[str, Any] = {"metrics": tuple(metrics), "randomization": None} if metrics else {}
    if reference is not None:
        cases = study.expanded_cases()
        if len(cases) > 1 and "*" not in str(reference):
            raise ConfigError(
                f"one reference for {len(cases)} cases; write a * in the file name for the id of "
                "the case"
            )
        update["cases"] = tuple(_with_reference(case, reference, label) for case in cases)
    return study.model_copy(update=update)


def evaluate_run(
    folder: Path, study: StudyConfig, *, trust: bool = False, listener: Listener | None = None
) -> Reevaluation:
    """Judges the maps of a run with the metrics of a study, and puts the scores into its table.

    Args:
        folder: The run directory.
        study: The one that made the run, or :func:`study_of_run`.
        trust: Whether files that run code may be opened.
        listener: Is told of the progress.

    Raises:
        VoxplainError: If the study does not fit the run.
    """
    store, told = Store(folder), listener or Silent()
    manifest = store.manifest()
    _require_same_networks(study, manifest, trust)
    checked = check_study(study, trust=trust)
    _require_same_images(checked, manifest, copies=study.base == folder)
    told.planned(Plan((), checked.plan.evaluations))
    private = Redactor(sources(study, tuple(checked.cases.values())), study.base)
    evaluator = Evaluator(store, private, study.execution.timeout, told)
    parts, failures = [], []
    with store.locked():
        for case, config in checked.cases.items():
            evaluations = [
                each for each in checked.plan.evaluations if each.combination.case == case
            ]
            image = read_case(config)
            for evaluation in evaluations:
                told.started(evaluation)
                loaded = checked.models[evaluation.combination.model]
                try:
                    found, reason = _judged(
                        evaluator, evaluation, manifest, checked, loaded.prepare(image)
                    )
                except VoxplainError as error:
                    found, reason = Scores(), private(reason_of(error, None))
                    told.failed(error)
                parts.append(found)
                failures += [f"{case} · {evaluation.combination.model}: {reason}"] if reason else []
        new = Scores.joined(parts)
        table = completed(merged(store.scores(), new))
        store.write_scores(table)
    return Reevaluation(Scores(table.rows[len(table) - len(new) :]), tuple(failures))


def merged(before: Scores, new: Scores) -> Scores:
    """A table with new scores in place of those they replace; the new ones come last."""
    replaced = {_identity(row) for row in new}
    return Scores(tuple(row for row in before if _identity(row) not in replaced)) + new


def _judged(
    evaluator: Evaluator,
    evaluation: EvaluationTask,
    manifest: Manifest,
    checked: CheckedStudy,
    image: Any,
) -> tuple[Scores, str]:
    combination = evaluation.combination
    records = maps_of(manifest, combination)
    known = evaluator.finished(evaluation, records)
    if known is not None:
        return known, ""
    for text in left_out(records):
        _say(text)
    inputs = evaluation_inputs(checked, combination, image, checked.models[combination.model])
    maps = maps_on_image_grid(records)
    own = {record.label for record in records if record.label in maps}
    return evaluator.evaluator(evaluation, [each for each in records if each.label in own], inputs)


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


def _known(cases: Sequence[Mapping[str, Any]], case: str) -> dict[str, Any]:
    """What the study said of a case beyond its files."""
    stated: Mapping[str, Any] = next((each for each in cases if each["id"] == case), {})
    return {name: stated[name] for name in KNOWN if name in stated}


def _model(resolved: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """A network with the files that were named for it."""
    model = {name: part for name, part in resolved.items() if name != "weights_sha256"}
    if any(name in found for name in _PLACES):
        model = {name: part for name, part in model.items() if name not in _PLACES}
    model = {**model, **found}
    if not any(name in model for name in _PLACES):
        raise ConfigError(
            f"model {model['name']}: the run keeps no file of its network; name it (--factory, "
            f"--file or --bundle), or {_GIVE_STUDY}"
        )
    return model


def _kept(target: Mapping[str, Any]) -> Mapping[str, Any]:
    if "file:" in repr(target):
        kind = target.get("kind")
        raise ConfigError(
            f"the target {kind} reads a file that the run does not keep; {_GIVE_STUDY}"
        )
    return target


def _methods(listed: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those that can be declared again; what they made is judged either way."""
    found = []
    for mapping in listed:
        try:
            parse_method(dict(mapping))
        except VoxplainError:
            name = mapping.get("label") or mapping["name"]
            _say(f"{name} reads files that the run does not keep, so that it cannot explain again")
        else:
            found.append(mapping)
    return found or [{"name": "saliency"}]


def _with_reference(case: CaseConfig, reference: Path, label: int | None) -> CaseConfig:
    file = Path(str(reference.absolute()).replace("*", str(case.id)))
    if not file.exists():
        raise ConfigError(f"there is no file {file}, the reference of case {case.id}")
    return case.model_copy(update={"reference": file, "reference_label": label})


def _require_same_networks(study: StudyConfig, manifest: Manifest, trust: bool) -> None:
    weights = {record.name: record.weights_sha256 for record in manifest.models}
    for config in study.models:
        if config.only_compared and config.name not in weights:
            continue  # it can join later
        if config.name not in weights:
            raise ModelError(f"model {config.name}: the run knows {', '.join(weights)} only")
        facts = load_model(config, study, trust).facts
        if facts.weights_sha256 != weights[config.name]:
            raise ModelError(
                f"model {config.name}: its weights are not those that were explained; name their "
                f"file with --weights, or {_GIVE_STUDY}"
            )


def _require_same_images(checked: CheckedStudy, manifest: Manifest, copies: bool) -> None:
    if copies:
        _say("the images are the copies in the run directory; --study takes the originals")
        return
    images = {record.id: record.image_sha256 for record in manifest.cases}
    for case, record in checked.records.items():
        if images.get(case, record.image_sha256) != record.image_sha256:
            raise ConfigError(f"case {case}: the image is not the one that was explained")


def _say(text: str) -> None:
    warnings.warn(text, VoxplainWarning, stacklevel=3)
