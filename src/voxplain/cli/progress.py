"""A run on the terminal: one bar with the remaining time, one line per failure."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from types import TracebackType

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from voxplain.cli.console import complain, err
from voxplain.records.manifest import TaskRecord
from voxplain.study import Plan, Task
from voxplain.study.planning.evaluation_task import EvaluationTask


class Bar:
    """Draws the progress of a run on standard error.

    Args:
        debug: Print the traceback of a failing task.
    """

    def __init__(self, debug: bool = False) -> None:
        self._debug = debug
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("[dim]passes[/dim]"),
            TimeElapsedColumn(),
            TextColumn("[dim]left[/dim]"),
            TimeRemainingColumn(),
            console=err,
            transient=True,
        )
        self._bar = self._progress.add_task("reading images and networks", total=None)
        self._passes_before = 0
        self._passes = 0

    def __enter__(self) -> Bar:
        if err.is_terminal:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def planned(self, plan: Plan) -> None:
        """Sets the length of the bar."""
        self._progress.update(self._bar, total=plan.passes, description="explaining")

    def started(self, task: Task | EvaluationTask) -> None:
        """Names the task at the bar."""
        self._passes = task.passes
        combination = task.combination
        words = f"{combination.case} · {combination.model} · {_shortened(task.labels)}"
        description = words if len(words) <= 60 else words[:59] + "…"
        self._progress.update(self._bar, description=description.replace("[", "\\["))

    def passed(self, done: int, planned: int) -> None:
        """Moves the bar within the task."""
        passes = self._passes_before + self._passes * done / max(1, planned)
        self._progress.update(self._bar, completed=passes)

    def failed(self, error: Exception) -> None:
        """Prints the traceback, with ``--debug``."""
        if self._debug:
            traceback.print_exception(error, file=sys.stderr)

    def finished(self, record: TaskRecord, reused: bool) -> None:
        """Moves the bar to the end of the task."""
        self._passes_before += record.passes
        self._progress.update(self._bar, completed=self._passes_before)
        where = f"{record.case} · {record.model} · {_shortened(record.methods)}"
        if record.status == "failed":
            complain(f"{where}: {record.reason}")
        elif not err.is_terminal:
            how = "kept from an earlier run" if reused else f"{record.seconds:.1f} s"
            err.print(f"done  {where}: {how}")


def _shortened(names: Sequence[str], most: int = 4) -> str:
    """The names; of many, the first and how many more."""
    more = [f"{len(names) - most} more"] if len(names) > most + 1 else []
    return ", ".join([*names[: most if more else None], *more])
