"""Scores that are finished, kept by the hash of what determines them, so that a run resumes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from voxplain.records.atomic import atomic_write
from voxplain.records.scores import Score, Scores

FOLDER = ".scores"


class ScoreCache:
    """The finished scores of one subject.

    Args:
        run: The run directory.
        key: Of the subject.
        fresh: Whether to forget what an earlier run has left.
    """

    def __init__(self, run: Path, key: str, fresh: bool = False) -> None:
        self._file = run / FOLDER / f"{key[:32]}.json"
        self._rows: dict[str, dict[str, Any]] = {}
        self._marks: dict[str, str] = {}
        if not fresh:
            self._read()

    def get(self, key: str) -> Score | None:
        """The score under a key, if it is finished."""
        record = self._rows.get(key)
        return None if record is None else Scores.of_records([record]).rows[0]

    def add(self, rows: Mapping[str, Score]) -> None:
        """Keeps some scores; the file is replaced as a whole."""
        records = Scores(tuple(rows.values())).to_records()
        self._rows.update(zip(rows, records, strict=True))
        self._write()

    def mark(self, name: str, key: str) -> None:
        """Notes that something of that name was finished, and what determined it."""
        self._marks[name] = key
        self._write()

    def is_marked(self, name: str, key: str) -> bool:
        """Whether it was finished as it stands now."""
        return self._marks.get(name) == key

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads(self._file.read_text(encoding="utf-8"))
            self._rows, self._marks = dict(found["rows"]), dict(found["marks"])

    def _write(self) -> None:
        atomic_write(self._file, json.dumps({"rows": self._rows, "marks": self._marks}))
