"""The concepts of a study: entries of a bank, with paths that start at the study file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from voxplain.concepts.bank import AnyConcepts, ConceptBank, ConceptSpec, FileConcepts
from voxplain.concepts.bank import parse_concepts as parse_entry
from voxplain.records.atomic import sha256
from voxplain.study.config.declarations import named


def _parsed(value: Any) -> Any:
    return parse_entry(value) if isinstance(value, Mapping) else value


StudyConcepts = Annotated[AnyConcepts, named(_parsed)]


def bank_of(declared: Sequence[ConceptSpec], base: Path) -> ConceptBank:
    """The concepts of a study.

    Args:
        declared: As the study states them.
        base: Folder that relative paths start from.

    Raises:
        ConfigError: If an entry does not fit, with its number.
    """
    return ConceptBank.of([_located(each, base) for each in declared])


def concept_files(
    declared: Sequence[ConceptSpec], cases: Iterable[tuple[str, str]], base: Path
) -> Iterator[Path]:
    """The files of cases and patients that concepts are read from, where they exist.

    Args:
        declared: As the study states them.
        cases: Ids of cases, each with that of its patient.
        base: Folder that relative paths start from.
    """
    patterns = [each.pattern for each in declared if isinstance(each, FileConcepts)]
    for case, patient in cases:
        for pattern in patterns:
            file = base / pattern.format(case=case, patient=patient)
            if file.is_file():
                yield file


def without_folders(declared: ConceptSpec) -> dict[str, Any]:
    """An entry as run directories keep it: of a file its name alone."""
    stated: dict[str, Any] = declared.model_dump(mode="json", exclude_none=True)
    if isinstance(declared, FileConcepts):
        stated["pattern"] = Path(declared.pattern).name
    return stated


def content_of(
    declared: Sequence[ConceptSpec], cases: Iterable[tuple[str, str]], base: Path
) -> list[Any]:
    """Everything that determines concepts: their entries, and hashes of their files."""
    hashes = [sha256(file) for file in concept_files(declared, cases, base)]
    return [[without_folders(each) for each in declared], hashes]


def _located(declared: ConceptSpec, base: Path) -> ConceptSpec:
    if not isinstance(declared, FileConcepts):
        return declared
    return declared.model_copy(update={"pattern": str(base / declared.pattern)})
