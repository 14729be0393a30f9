"""The resolved study of a run directory: every default filled in, and no path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import yaml
from pydantic import BaseModel

from voxplain.study.config.case_files import without_files
from voxplain.study.config.cases import CaseConfig
from voxplain.study.config.concepts import without_folders
from voxplain.study.planning.checked_study import CheckedStudy
from voxplain.study.planning.networks import LoadedModel

KEPT_FIELDS = ("patient", "reference_label", "reference_ignore", "truth")
"""Fields of a case that a resolved study keeps as they are written."""

_FILES = {"weights", "bundle", "file", "nnunet"}


def resolved_text(checked: CheckedStudy, private: Callable[[str], str]) -> str:
    """The study as YAML, with every default filled in, and with hashes in place of files.

    Args:
        checked: The study after its check.
        private: Filters the texts among the arguments of factories, which may hold paths.
    """
    resolved = _resolved(checked)
    for model in resolved["models"]:
        model["arguments"] = _filtered(model["arguments"], private)
    return yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True, width=100)


def _filtered(value: Any, private: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return private(value)
    if isinstance(value, Mapping):
        return {private(str(name)): _filtered(inner, private) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_filtered(inner, private) for inner in value]
    return value


def _resolved(checked: CheckedStudy) -> dict[str, Any]:
    study = checked.study
    return {
        "cases": [
            {"id": record.id, "image_sha256": record.image_sha256, "channels": [*record.channels]}
            | _kept_fields(checked.cases[record.id])
            for record in checked.records.values()
        ],
        "models": [_model(loaded) for loaded in checked.models.values()],
        "targets": [_plain(without_files(target)) for target in study.all_targets],
        "methods": [_plain(method) for method in study.methods],
        "metrics": [_plain(metric) for metric in study.metrics],
        "concepts": [without_folders(concept) for concept in study.concepts],
        "analyses": [_plain(analysis) for analysis in study.analyses],
        "randomization": _plain(study.randomization) if study.randomization else None,
        "references": [
            name if name in checked.cases else {"image_sha256": source.sha256}
            for name, source in zip(study.references, checked.reference_sources, strict=True)
        ],
        "run": study.execution.model_dump(mode="json"),
    }


def _kept_fields(case: CaseConfig) -> dict[str, Any]:
    stated = {name: getattr(case, name) for name in KEPT_FIELDS}
    return {name: value for name, value in stated.items() if value is not None}


def _model(loaded: LoadedModel) -> dict[str, Any]:
    dumped = loaded.config.model_dump(mode="json", exclude_none=True, exclude=_FILES)
    if ".py" in str(dumped.get("factory", "")):
        dumped["factory"] = str(dumped["factory"]).replace("\\", "/").rsplit("/", 1)[-1]
    return {**dumped, "weights_sha256": loaded.facts.weights_sha256}


def _plain(declaration: BaseModel) -> dict[str, Any]:
    return declaration.model_dump(mode="json", exclude_none=True)
