"""Files that targets and methods name: their paths for a case, and hashes in place of names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from voxplain.errors import ConfigError, InputError
from voxplain.records.atomic import sha256
from voxplain.regions import LabelMap
from voxplain.study.config.cases import CaseConfig

OWN_REFERENCE = "reference"
"""In place of a file name: the reference of the case."""

D = TypeVar("D", bound=BaseModel)


def for_case(declaration: D, case: CaseConfig, base: Path) -> D:
    """A target or method with the paths of the files of one case.

    The class variable ``files`` lists the fields that may name a file; declarations inside others
    (the sides of a contrast, the regions of a method) are included.

    Args:
        declaration: As the study states it; ``*`` in a file name stands for the id of the case.
        case: With id and absolute paths.
        base: Folder that relative paths start from.

    Raises:
        ConfigError: If it needs the reference of the case, and there is none.
        InputError: If a file does not exist.
    """
    update: dict[str, Any] = {
        name: str(_file(text, f"{_kind(declaration)}.{name}", case, base))
        for name, text in _file_fields(declaration).items()
    }
    if OWN_REFERENCE in _file_fields(declaration).values() and _ignores(declaration, None):
        update |= {"ignore": case.reference_ignore}
    for name, inner in _inner(declaration):
        with_paths = for_case(inner, case, base)
        update |= {name: with_paths} if with_paths is not inner else {}
    return declaration.model_copy(update=update) if update else declaration


def contents(declaration: BaseModel) -> list[str]:
    """Hashes of the files of a target or method, and what it ignores, after :func:`for_case`."""
    return [sha256(text) for text in files_of(declaration)] + list(_ignored(declaration))


def _ignored(declaration: BaseModel) -> Iterator[str]:
    if getattr(declaration, "ignore", None) is not None:
        yield f"without {declaration.ignore}"  # type: ignore[attr-defined]
    for _, inner in _inner(declaration):
        yield from _ignored(inner)


def _ignores(declaration: BaseModel, label: int | None) -> bool:
    """Whether a declaration can ignore a label, and ignores this one."""
    return "ignore" in type(declaration).model_fields and declaration.ignore == label  # type: ignore[attr-defined]


def files_of(declaration: BaseModel) -> Iterator[str]:
    """Every file that a target or method names."""
    yield from _file_fields(declaration).values()
    for _, inner in _inner(declaration):
        yield from files_of(inner)


def label_maps(declaration: BaseModel) -> Iterator[LabelMap]:
    """Every label map of a method that comes from a file."""
    if isinstance(declaration, LabelMap) and "labels" in _file_fields(declaration):
        yield declaration
    for _, inner in _inner(declaration):
        yield from label_maps(inner)


def without_files(declaration: D) -> D:
    """The same with hashes in place of file names, for everything that is written."""
    update: dict[str, Any] = {
        name: OWN_REFERENCE if text == OWN_REFERENCE else f"file:{_digest(text)}"
        for name, text in _file_fields(declaration).items()
    }
    update |= {name: without_files(inner) for name, inner in _inner(declaration)}
    return declaration.model_copy(update=update) if update else declaration


def _file_fields(declaration: BaseModel) -> dict[str, str]:
    """The fields that name a file, with the names."""
    values = {name: getattr(declaration, name) for name in getattr(declaration, "files", ())}
    return {name: str(value) for name, value in values.items() if isinstance(value, (str, Path))}


def _inner(declaration: BaseModel) -> Iterator[tuple[str, BaseModel]]:
    """The fields that are declarations themselves."""
    for name in type(declaration).model_fields:
        inner = getattr(declaration, name)
        if isinstance(inner, BaseModel):
            yield name, inner


def _kind(declaration: BaseModel) -> str:
    return str(getattr(declaration, "kind", type(declaration).__name__))


def _file(text: str, field: str, case: CaseConfig, base: Path) -> Path:
    if text == OWN_REFERENCE:
        if case.reference is None:
            raise ConfigError(f"{field} is the reference of case {case.id}, which has none")
        return case.reference
    file = base / text.replace("*", str(case.id))
    if not file.exists():
        raise InputError(f"there is no file {file}, which {field} names")
    return file


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
