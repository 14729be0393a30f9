"""``events.jsonl``: the events of a run, one per line, without dates and paths."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, BinaryIO

from voxplain.study.execution.privacy import Redactor


class EventLog:
    """Appends events to a run directory.

    Args:
        file: The ``events.jsonl`` of the run.
        private: Filters every text.
    """

    def __init__(self, file: Path, private: Redactor) -> None:
        self._file = file
        self._private = private
        self._start = time.monotonic()

    def add(self, event: str, **facts: Any) -> None:
        """Writes one event with the seconds since the start of this run."""
        seconds = round(time.monotonic() - self._start, 3)
        filtered = {
            name: self._private(value) if isinstance(value, str) else value
            for name, value in facts.items()
        }
        line = json.dumps({"event": event, "seconds": seconds, **filtered}, default=str)
        with self._file.open("ab+") as stream:
            torn = stream.tell() > 0 and _last_byte(stream) != b"\n"  # of a process that was killed
            stream.write(b"\n" * torn + line.encode() + b"\n")


def _last_byte(stream: BinaryIO) -> bytes:
    stream.seek(-1, os.SEEK_END)
    return stream.read(1)
