"""How far a run is, from its files alone: also while it runs, and on another machine."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxplain.records.manifest import Manifest, TaskRecord
from voxplain.study.execution.store import EVENTS, Store


@dataclass(frozen=True)
class RunStatus:
    """How far a run is.

    Attributes:
        manifest: What it has so far.
        owner: Who is running it, in words; None if nobody is.
        at_work: What each worker is doing, by its number.
        seconds: Since the run was started for the last time.
        left: Seconds until it is done, as the run last judged; None where it is not known.
    """

    manifest: Manifest
    owner: str | None
    at_work: dict[int, str]
    seconds: float
    left: float | None

    @property
    def counts(self) -> dict[str, int]:
        """Tasks by status."""
        found = Counter(task.status for task in self.manifest.tasks)
        return {status: found[status] for status in ("done", "failed", "pending")}

    @property
    def failures(self) -> dict[str, list[TaskRecord]]:
        """The tasks that failed by their reason, the most frequent first."""
        found: dict[str, list[TaskRecord]] = {}
        for task in self.manifest.failed:
            found.setdefault(task.reason or "", []).append(task)
        return dict(sorted(found.items(), key=lambda entry: -len(entry[1])))

    def to_json(self) -> dict[str, Any]:
        """The same for machines."""
        return {
            **self.counts,
            "running": self.owner is not None,
            "owner": self.owner,
            "at_work": {str(worker): text for worker, text in self.at_work.items()},
            "seconds": self.seconds,
            "left": self.left,
            "failures": [
                task.model_dump(include={"case", "model", "target", "methods", "reason"})
                for task in self.manifest.failed
            ],
        }


def status_of(folder: str | Path) -> RunStatus:
    """How far the run in a folder is.

    Raises:
        ConfigError: If there is none.
    """
    store = Store(Path(folder))
    manifest, owner = store.manifest(), store.owner()
    events = _events(store.folder / EVENTS)
    seconds = float(events[-1].get("seconds", 0.0)) if events else 0.0
    at_work = _at_work(events) if owner is not None else {}
    judged = [event["left"] for event in events if "left" in event]
    left = float(judged[-1]) if judged and owner is not None else None
    return RunStatus(manifest, owner, at_work, seconds, left)


def _events(file: Path) -> list[dict[str, Any]]:
    """The events since the run was started for the last time."""
    found: list[dict[str, Any]] = []
    for line in file.read_bytes().splitlines() if file.is_file() else ():
        with contextlib.suppress(ValueError):  # a line of a process that was killed
            event = json.loads(line)
            if event["event"] == "started":
                found.clear()
            found.append(event)
    return found


_ENDS = ("task done", "task failed")


def _at_work(events: list[dict[str, Any]]) -> dict[int, str]:
    """The last task that each worker has begun, unless it has ended."""
    begun: dict[int, dict[str, Any]] = {}
    for event in events:
        if event["event"] == "task started":
            begun[int(event.get("worker", 0))] = event
        elif event["event"] in _ENDS:
            ended = _identity(event)
            begun = {worker: each for worker, each in begun.items() if _identity(each) != ended}
    return {
        worker: f"{event['case']} · {event['model']} · {event['methods']}"
        for worker, event in sorted(begun.items())
    }


def _identity(event: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(event.get(name) for name in ("case", "model", "target", "kind", "methods"))
