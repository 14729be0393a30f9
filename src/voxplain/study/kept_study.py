"""The study of a run, put together again from what the run directory keeps of it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from voxplain.engine.method import parse_method
from voxplain.errors import ConfigError, VoxplainError, VoxplainWarning
from voxplain.records.manifest import CaseRecord
from voxplain.study.config.study import StudyConfig
from voxplain.study.config.yaml_files import read_mapping
from voxplain.study.execution.resolved import KEPT_FIELDS
from voxplain.study.execution.store import STUDY, Store

GIVE_STUDY = "give the study file that made the run: --study study.yaml"
"""What to do where the run directory keeps too little."""

_NETWORK_FIELDS = ("factory", "file", "bundle", "nnunet")
_NOT_KEPT = ("weights_sha256", "weights", "file", "bundle", "nnunet")


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
            f"the run has {len(resolved['models'])} networks, and the flags name one; {GIVE_STUDY}"
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
            f"{GIVE_STUDY}"
        )
    if not any(name in model for name in _NETWORK_FIELDS):
        raise ConfigError(
            f"model {model['name']}: the run keeps no file of its network; name it (--factory, "
            f"--file, --bundle or --nnunet), or {GIVE_STUDY}"
        )
    return model


def _target(resolved: Mapping[str, Any]) -> Mapping[str, Any]:
    if "file:" in repr(resolved):
        kind = resolved.get("kind")
        raise ConfigError(
            f"the target {kind} reads a file that the run does not keep; {GIVE_STUDY}"
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


def _warn(text: str) -> None:
    warnings.warn(text, VoxplainWarning, stacklevel=4)
