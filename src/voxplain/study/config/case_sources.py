"""Entries of a study that stand for many cases, and the choice among them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from voxplain.errors import ConfigError, nearest
from voxplain.study.config.cases import CaseConfig, Spacing, listed
from voxplain.study.config.errors import explain_validation

Patterns = Annotated[tuple[str, ...], BeforeValidator(listed)]


class CaseSource(BaseModel, ABC):
    """Many cases at once.

    Attributes:
        ids: Only the cases whose id fits one of these patterns, with ``*`` and ``?``.
        limit: At most so many, the first ones.
        spacing: Of every case, where its files do not say it.
        reference_label: Of every case; see :class:`CaseConfig`.
        reference_ignore: Of every case.
        rank: Of every case.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ids: Patterns = ()
    limit: int | None = Field(default=None, ge=1)
    spacing: Spacing = None
    reference_label: int | None = Field(default=None, ge=1)
    reference_ignore: int | None = Field(default=None, ge=1)
    rank: int | None = Field(default=None, ge=2, le=3)

    @abstractmethod
    def all_cases(self, base: Path) -> list[CaseConfig]:
        """Every case with absolute paths, in a fixed order.

        Args:
            base: Folder that relative paths start from.

        Raises:
            ConfigError: With the file, and the row or case where something is wrong.
        """

    def expanded(self, base: Path) -> list[CaseConfig]:
        """The cases that are chosen.

        Raises:
            ConfigError: Also if none is.
        """
        return chosen(self.all_cases(base), self.ids, self.limit)

    def case(self, where: str, **fields: Any) -> CaseConfig:
        """A case with what holds for all of them, and with fields of its own.

        Args:
            where: In front of errors.
            fields: Those that are None are left out.

        Raises:
            ConfigError: If a value does not fit.
        """
        shared = {name: getattr(self, name) for name in _SHARED}
        stated = shared | {name: value for name, value in fields.items() if value is not None}
        try:
            return CaseConfig.model_validate(stated)
        except ValidationError as error:
            raise ConfigError(explain_validation(error, CaseConfig, where)) from error


_SHARED = ("spacing", "reference_label", "reference_ignore", "rank")


class CaseFolder(CaseConfig):
    """A pattern below a folder, with a choice among what fits.

    Attributes:
        folder: Where the patterns of ``image`` and ``reference`` start.
        ids: Only the cases whose id fits one of these patterns, with ``*`` and ``?``.
        limit: At most so many, the first ones.
    """

    folder: Path
    ids: Patterns = ()
    limit: int | None = Field(default=None, ge=1)

    def expanded(self, base: Path) -> list[CaseConfig]:
        """The cases that fit and are chosen.

        Raises:
            ConfigError: If the folder does not exist, or there is no such case.
        """
        folder = existing_folder(base / self.folder)
        plain = {name: getattr(self, name) for name in CaseConfig.model_fields}
        entry = CaseConfig.model_construct(**plain)
        return chosen(entry.expanded(folder), self.ids, self.limit)


def existing_folder(folder: Path) -> Path:
    """A folder.

    Raises:
        ConfigError: If it does not exist.
    """
    if not folder.is_dir():
        raise ConfigError(f"cases: there is no folder {folder}")
    return folder


def chosen(
    cases: Sequence[CaseConfig], patterns: Sequence[str], limit: int | None
) -> list[CaseConfig]:
    """The cases whose id fits a pattern, and of those the first ones.

    Args:
        cases: All.
        patterns: Of ids; all cases if there are none.
        limit: How many at most.

    Raises:
        ConfigError: If a pattern fits no case, or cases have no id that it could fit.
    """
    if not patterns:
        return [*cases[:limit]]
    ids = [case.id for case in cases if case.id is not None]
    if len(ids) < len(cases):
        raise ConfigError("cases: ids chooses by the ids of cases, and these have none")
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in ids):
            raise ConfigError(f"cases: ids: no case fits {pattern!r}; {nearest(pattern, ids)}")
    fits = (case for case in cases if any(fnmatchcase(str(case.id), each) for each in patterns))
    return [*fits][:limit]
