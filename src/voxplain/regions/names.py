"""Names of labels from JSON, tables, or the color tables of atlases."""

from __future__ import annotations

import csv
import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from voxplain.errors import InputError


def read_names(path: str | Path) -> dict[int, str]:
    """Names by label from a JSON, CSV or TSV file, or a color table of FreeSurfer or ITK-SNAP.

    In a table, the label is the first whole number of a line, and the name the first word that is
    no number; lines without either (headers, comments) are skipped.

    Raises:
        InputError: If the file is missing or holds no name of a label.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {path.name} with the names of the labels")
    try:
        text = path.read_text(encoding="utf-8-sig")
        names = _from_json(text) if path.suffix.lower() == ".json" else dict(_from_table(text))
    except (OSError, ValueError, AttributeError, RecursionError, csv.Error) as error:
        raise InputError(f"{path.name} is not a table of label names: {error}") from error
    if not names:
        raise InputError(f"{path.name} names no label; write one '3,liver' per line")
    return names


def _from_json(text: str) -> dict[int, str]:
    mapping = json.loads(text)
    if not isinstance(mapping, Mapping):
        raise ValueError('it must be a mapping such as {"3": "liver"}')
    # Some tools write {"3": "liver"}, others {"liver": 3}.
    by_name = all(isinstance(value, int) for value in mapping.values())
    pairs = ((value, key) if by_name else (key, value) for key, value in mapping.items())
    return {int(label): str(name) for label, name in pairs}


def _from_table(text: str) -> Iterator[tuple[int, str]]:
    for line in text.splitlines():
        words = _words(line) if not line.lstrip().startswith("#") else []
        label = next((word for word in words if _is_whole(word)), None)
        name = next((word for word in words if not _is_number(word)), None)
        if label is not None and name is not None:
            yield int(label), name


def _words(line: str) -> list[str]:
    separator = next((mark for mark in "\t,;" if mark in line), None)
    if separator is None:
        return shlex.split(line)
    return [word.strip() for word in next(csv.reader([line], delimiter=separator))]


def _is_whole(word: str) -> bool:
    return word.lstrip("-").isdigit()


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return not word
    return True
