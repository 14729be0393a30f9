"""Which of the tasks that are left a run does."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from voxplain.records.manifest import TaskRecord


@dataclass(frozen=True)
class Selection:
    """Which of the tasks that are left a run does.

    Attributes:
        pattern: Of ``case/network/target/method``, with ``*`` for anything and later parts left
            out; everything if empty. A task runs whole if it fits one of its methods or metrics.
        only_failed: Those alone that failed in the earlier run.
        analyses: Names of analyses; if there are any, these alone.
    """

    pattern: str = ""
    only_failed: bool = False
    analyses: frozenset[str] = frozenset()

    def takes(self, task: TaskRecord) -> bool:
        """Whether the run does a task, whose record says what became of it in the earlier run."""
        if self.only_failed and task.status != "failed":
            return False
        if self.analyses and not (task.kind == "analysis" and {*task.methods} <= self.analyses):
            return False
        if not self.pattern:
            return True
        place = [task.case, task.model, task.target]
        parts = self.pattern.split("/")
        fits = all(fnmatchcase(name, part) for name, part in zip(place, parts, strict=False))
        methods = "/".join(parts[3:])
        return fits and (not methods or any(fnmatchcase(each, methods) for each in task.methods))
