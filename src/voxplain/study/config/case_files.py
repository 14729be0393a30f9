"""Files that targets and methods name: found per case, and never named in what a run writes."""

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
"""Written in place of a file, this is the reference of the case."""

P = TypeVar("P", bound=BaseModel)


def for_case(part: P, case: CaseConfig, base: Path) -> P:
    """A target or method with the files of one case.

    Which fields may name a file is said by the ``files`` of the class; what lies inside (the sides
    of a contrast, the regions of a method) is gone through as well.

    Args:
        part: As the study states it; ``*`` in a file name stands for the id of the case.
        case: With id and absolute paths.
        base: Folder that relative paths start from.

    Raises:
        ConfigError: If it needs the reference of the case, and there is none.
        InputError: If a file does not exist.
    """
    update: dict[str, Any] = {
        name: str(_file(text, f"{_kind(part)}.{name}", case, base))
        for name, text in _named(part).items()
    }
    for name, inner in _inside(part):
        placed = for_case(inner, case, base)
        update |= {name: placed} if placed is not inner else {}
    return part.model_copy(update=update) if update else part


def contents(part: BaseModel) -> list[str]:
    """Hashes of the files that :func:`for_case` has found."""
    return [sha256(text) for text in files_of(part)]


def files_of(part: BaseModel) -> Iterator[str]:
    """Every file a target or method names."""
    yield from _named(part).values()
    for _, inner in _inside(part):
        yield from files_of(inner)


def label_maps(part: BaseModel) -> Iterator[LabelMap]:
    """Every label map of a method that comes from a file."""
    if isinstance(part, LabelMap) and "labels" in _named(part):
        yield part
    for _, inner in _inside(part):
        yield from label_maps(inner)


def without_files(part: P) -> P:
    """The same with hashes in place of names, for everything that is written."""
    update: dict[str, Any] = {
        name: OWN_REFERENCE if text == OWN_REFERENCE else f"file:{_digest(text)}"
        for name, text in _named(part).items()
    }
    update |= {name: without_files(inner) for name, inner in _inside(part)}
    return part.model_copy(update=update) if update else part


def _named(part: BaseModel) -> dict[str, str]:
    values = {name: getattr(part, name) for name in getattr(part, "files", ())}
    return {name: str(value) for name, value in values.items() if isinstance(value, (str, Path))}


def _inside(part: BaseModel) -> Iterator[tuple[str, BaseModel]]:
    for name in type(part).model_fields:
        inner = getattr(part, name)
        if isinstance(inner, BaseModel):
            yield name, inner


def _kind(part: BaseModel) -> str:
    return str(getattr(part, "kind", type(part).__name__))


def _file(text: str, field: str, case: CaseConfig, base: Path) -> Path:
    if text == OWN_REFERENCE:
        if case.reference is None:
            raise ConfigError(f"{field} asks for the reference of case {case.id}: it has none")
        return case.reference
    file = base / text.replace("*", str(case.id))
    if not file.exists():
        raise InputError(f"there is no file {file}, which {field} names")
    return file


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
