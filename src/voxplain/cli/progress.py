"""A run on the terminal: one bar with the remaining time, one line per failure."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import TracebackType

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from voxplain.cli.console import complain, err, remark
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
        self._finished = 0
        self._passes: dict[int, int] = {}
        self._at_work: dict[int, float] = {}
        self._rows: list[TaskID] = []

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

    def planned(self, plan: Plan, workers: int) -> None:
        """Sets the length of the bar, and adds one for each worker where there are several."""
        self._progress.update(self._bar, total=plan.passes, description="explaining")
        if workers > 1:
            self._rows = [self._progress.add_task("", total=None) for _ in range(workers)]

    def started(self, task: Task | EvaluationTask, worker: int) -> None:
        """Names the task at the bar of its worker."""
        self._passes[worker], self._at_work[worker] = task.passes, 0.0
        combination = task.combination
        words = f"{combination.case} · {combination.model} · {_shortened(task.labels)}"
        description = words if len(words) <= 60 else words[:59] + "…"
        row = self._rows[worker] if self._rows else self._bar
        self._progress.update(row, description=description.replace("[", "\\["))
        if self._rows:
            self._progress.reset(row, total=task.passes)

    def passed(self, done: int, planned: int, worker: int) -> None:
        """Moves the bars within the task of a worker."""
        self._at_work[worker] = self._passes.get(worker, 0) * done / max(1, planned)
        self._progress.update(self._bar, completed=self._finished + sum(self._at_work.values()))
        if self._rows:
            self._progress.update(self._rows[worker], completed=self._at_work[worker])

    def failed(self, log: str) -> None:
        """Prints the tracebacks, with ``--debug``."""
        if self._debug:
            print(log, file=sys.stderr)

    def told(self, text: str) -> None:
        """Prints a sentence above the bar."""
        remark(text)

    def finished(self, record: TaskRecord, reused: bool) -> None:
        """Moves the bar to the end of the task."""
        self._finished += record.passes
        self._progress.update(self._bar, completed=self._finished)
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
