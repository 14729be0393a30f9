"""The resolved study that a run directory keeps: every default filled in, and no path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from voxplain.study.config.case_files import without_files

if TYPE_CHECKING:
    from voxplain.study.planning.checked_study import CheckedStudy

KNOWN = ("patient", "reference_label", "truth")
"""Fields of a case that a resolved study keeps as they are written."""

_FILES = {"weights", "bundle", "file"}


def resolved_study(checked: CheckedStudy) -> dict[str, Any]:
    """What was asked for, with hashes in place of files.

    Args:
        checked: The study after its check.
    """
    study = checked.study
    return {
        "cases": [
            {"id": record.id, "image_sha256": record.image_sha256, "channels": [*record.channels]}
            | _known(checked, record.id)
            for record in checked.records.values()
        ],
        "models": [_model(checked, name) for name in checked.models],
        "targets": [_plain(without_files(target)) for target in study.all_targets],
        "methods": [_plain(method) for method in study.methods],
        "metrics": [_plain(metric) for metric in study.metrics],
        "randomization": _plain(study.randomization) if study.randomization else None,
        "references": [
            name if name in checked.cases else {"image_sha256": sha}
            for name, sha in zip(study.references, checked.reference_sha256, strict=True)
        ],
        "run": study.execution.model_dump(mode="json"),
    }


def _known(checked: CheckedStudy, case: str) -> dict[str, Any]:
    """What the study says of a case beyond its files."""
    config = checked.cases[case]
    stated = {name: getattr(config, name) for name in KNOWN}
    return {name: value for name, value in stated.items() if value is not None}


def _model(checked: CheckedStudy, name: str) -> dict[str, Any]:
    loaded = checked.models[name]
    dumped = loaded.config.model_dump(mode="json", exclude_none=True, exclude=_FILES)
    if ".py" in str(dumped.get("factory", "")):
        dumped["factory"] = str(dumped["factory"]).replace("\\", "/").rsplit("/", 1)[-1]
    return {**dumped, "weights_sha256": loaded.facts.weights_sha256}


def _plain(part: Any) -> dict[str, Any]:
    dumped: dict[str, Any] = part.model_dump(mode="json", exclude_none=True)
    return dumped
