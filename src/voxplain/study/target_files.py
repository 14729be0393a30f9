"""Targets that name a mask file: found per case, and never named in what a run writes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from voxplain.errors import ConfigError, InputError
from voxplain.io import sha256
from voxplain.study.cases import CaseConfig
from voxplain.targets import Target

_FILES = ("mask", "reference")
_SIDES = ("a", "b")
OWN_REFERENCE = "reference"
"""Written in place of a file, this is the reference of the case."""


def for_case(target: Target, case: CaseConfig, base: Path) -> Target:
    """The target with the files of one case.

    Args:
        target: As the study states it; ``*`` in a file name stands for the id of the case.
        case: With id and absolute paths.
        base: Folder that relative paths start from.

    Raises:
        ConfigError: If the target needs the reference of the case, and there is none.
        InputError: If a file does not exist.
    """
    update: dict[str, Any] = {
        name: str(_file(text, case, base)) for name, text in _named(target).items()
    }
    update |= {name: for_case(side, case, base) for name, side in _sides(target)}
    return target.model_copy(update=update) if update else target


def contents(target: Target) -> list[str]:
    """Hashes of the files of a target that :func:`for_case` has found."""
    return [sha256(text) for text in files_of(target)]


def files_of(target: Target) -> Iterator[str]:
    """Every file a target names."""
    yield from _named(target).values()
    for _, side in _sides(target):
        yield from files_of(side)


def without_files(target: Target) -> Target:
    """The target with hashes in place of names, for everything that is written."""
    update: dict[str, Any] = {
        name: OWN_REFERENCE if text == OWN_REFERENCE else f"file:{_digest(text)}"
        for name, text in _named(target).items()
    }
    update |= {name: without_files(side) for name, side in _sides(target)}
    return target.model_copy(update=update) if update else target


def _named(target: Target) -> dict[str, str]:
    values = {name: getattr(target, name, None) for name in _FILES}
    return {name: str(value) for name, value in values.items() if isinstance(value, (str, Path))}


def _sides(target: Target) -> Iterator[tuple[str, Target]]:
    for name in _SIDES:
        side = getattr(target, name, None)
        if isinstance(side, Target):
            yield name, side


def _file(text: str, case: CaseConfig, base: Path) -> Path:
    if text == OWN_REFERENCE:
        if case.reference is None:
            raise ConfigError(f"the target asks for the reference of case {case.id}: it has none")
        return case.reference
    file = base / text.replace("*", str(case.id))
    if not file.exists():
        raise InputError(f"there is no file {file}, which the target names")
    return file


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
