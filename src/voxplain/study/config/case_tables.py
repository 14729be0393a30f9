"""Cases from a table: a row per case, CSV or TSV."""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator

from voxplain.errors import ConfigError, nearest
from voxplain.study.config.case_sources import CaseSource
from voxplain.study.config.cases import CaseConfig, listed

LARGEST = 100_000_000
"""Bytes of a table."""

_FILES = ("image", "reference")
_NUMBERS = ("reference_label", "reference_ignore", "truth", "rank", "series")
_COLUMNS = ("id", "patient", "spacing", *_FILES, *_NUMBERS)
_ALIKE = 0.8
"""So much like the name of a known column is a mistyped one."""


class CaseTable(CaseSource):
    """The rows of a table, each of which is a case.

    Columns are called like the fields of a case. The channels are in a column each, named by
    ``channels``; or in one column ``image``, several files with ``;`` between them. Relative paths
    start at the table, and an empty cell is a field that is left out.

    Attributes:
        table: The file; ``.tsv`` has tabs between the columns, others commas or semicolons.
        channels: The columns that hold a channel each. Left out, and without a column ``image``,
            these are all columns that are no field of a case.
        ignore: Columns that say nothing of the cases.
    """

    table: Path
    channels: Annotated[tuple[str, ...] | None, BeforeValidator(listed)] = None
    ignore: Annotated[tuple[str, ...], BeforeValidator(listed)] = ()

    def all_cases(self, base: Path) -> list[CaseConfig]:
        """A case per row.

        Raises:
            ConfigError: With the name of the table and the number of the row, the header being 1.
        """
        file = base / self.table
        header, rows = _read(file)
        channels = self._channels(file, header)
        cases, seen = [], dict[str, int]()
        for number, cells in rows:
            where = f"{file.name}, row {number}"
            if len(cells) != len(header):
                raise ConfigError(f"{where}: {len(cells)} cells, and the header has {len(header)}")
            values = dict(zip(header, map(str.strip, cells), strict=True))
            case = self._case(where, values, channels, file.parent)
            if case.id is not None and seen.setdefault(case.id, number) != number:
                raise ConfigError(f"{where}: the id {case.id!r} is that of row {seen[case.id]} too")
            cases.append(case)
        if not cases:
            raise ConfigError(f"{file.name}: no rows below the header")
        return cases

    def _channels(self, file: Path, header: Sequence[str]) -> tuple[str, ...]:
        """The columns that hold a channel each; none where there is one column for all of them.

        Raises:
            ConfigError: If a column is unknown or missing.
        """
        for name in (*(self.channels or ()), *self.ignore):
            if name not in header:
                raise ConfigError(f"{file.name}: no column {name!r}; {nearest(name, header)}")
        others = [name for name in header if name not in (*_COLUMNS, *self.ignore)]
        others = [name for name in others if name not in (self.channels or ())]
        guessed = self.channels is None and "image" not in header
        for name in others:
            close = difflib.get_close_matches(name.lower(), _COLUMNS, n=1, cutoff=_ALIKE)
            if close or not guessed:
                raise ConfigError(
                    f"{file.name}: unknown column {name!r}; {nearest(name.lower(), _COLUMNS)} "
                    "(channels names columns with images, ignore those to leave out)"
                )
        if self.channels is not None and "image" in header:
            raise ConfigError(
                f"{file.name}: the images are in the columns of channels and in image; ignore one"
            )
        channels = tuple(others) if guessed else self.channels or ()
        if guessed and not channels:
            raise ConfigError(f"{file.name}: no column 'image', and none for a channel")
        return channels

    def _case(
        self, where: str, row: Mapping[str, str], channels: Sequence[str], folder: Path
    ) -> CaseConfig:
        columns = channels or ("image",)
        empty = next((name for name in columns if not row[name]), None)
        if empty is not None:
            raise ConfigError(f"{where}: the column {empty!r} is empty")
        images = [row[name] for name in channels] or re.split(r"\s*;\s*", row["image"])
        names = [*channels] or ["image"] * len(images)
        fields: dict[str, object] = {
            "image": [_file(where, *each, folder) for each in zip(names, images, strict=True)],
            "channels": tuple(channels) or None,
        }
        for name in _COLUMNS:
            value = row.get(name, "")
            if not value or name == "image":
                continue
            if name in _NUMBERS:
                fields[name] = _number(where, name, value)
            elif name == "spacing":
                fields[name] = _spacing(where, value)
            elif name == "reference":
                fields[name] = _file(where, name, value, folder)
            else:
                fields[name] = _plain(where, name, value)
        return self.case(where, **fields)


def _read(file: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header of a table, and its rows with their numbers, empty ones left out.

    Raises:
        ConfigError: If it is missing or no table.
    """
    if not file.is_file():
        raise ConfigError(f"cases: there is no table {file}")
    if file.stat().st_size > LARGEST:
        raise ConfigError(f"{file.name}: a table of cases has {LARGEST:,} bytes at most")
    try:
        text = file.read_text(encoding="utf-8-sig")
        first = text.partition("\n")[0]
        between = "\t" if file.suffix.lower() == ".tsv" else max(",;\t", key=first.count)
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=between))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{file.name}: not a table in UTF-8, CSV or TSV") from error
    if not rows or not any(rows[0]):
        raise ConfigError(f"{file.name}: the first row of a table names its columns")
    header = [name.strip() for name in rows[0]]
    repeated = next((name for name in header if header.count(name) > 1), None)
    if repeated is not None:
        raise ConfigError(f"{file.name}: two columns are called {repeated!r}")
    numbered = enumerate(rows[1:], start=2)
    return header, [(number, cells) for number, cells in numbered if any(map(str.strip, cells))]


def _file(where: str, column: str, text: str, folder: Path) -> Path:
    file = folder / text
    if not file.exists():
        raise ConfigError(f"{where}: there is no file {file}, which the column {column!r} names")
    return file


def _plain(where: str, column: str, text: str) -> str:
    if "*" in text:
        raise ConfigError(f"{where}: {column}: {text!r} has a *, and a row is one case")
    return text


def _number(where: str, column: str, text: str) -> int:
    number = re.fullmatch(r"(\d+)(?:\.0+)?", text)  # spreadsheets write 1.0 for 1
    if number is None:
        raise ConfigError(f"{where}: {column}: {text!r} is not a whole number")
    return int(number[1])


def _spacing(where: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(map(float, filter(None, re.split(r"[\s;x]+", text))))
    except ValueError as error:
        raise ConfigError(
            f"{where}: spacing: {text!r} is not a size; write 1.5, or 1 1 2.5 for three axes"
        ) from error
