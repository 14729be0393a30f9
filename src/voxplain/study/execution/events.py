"""``events.jsonl``: the events of a run, one per line, without dates and paths."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

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
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")
