"""A run on the terminal: one bar with the remaining time, one line per failure."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Task as BarTask
from rich.text import Text

from voxplain.cli.console import complain, err, remark
from voxplain.records.manifest import TaskRecord
from voxplain.study import Plan
from voxplain.study.planning.analysis_task import AnyTask
from voxplain.study.planning.time_limit import in_words


class Bar:
    """Draws the progress of a run on standard error.

    Args:
        debug: Print the traceback of a failing task.
    """

    def __init__(self, debug: bool = False) -> None:
        self._debug = debug
        self._left = _TimeLeft()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("[dim]passes[/dim]"),
            TimeElapsedColumn(),
            self._left,
            console=err,
            transient=True,
        )
        self._bar = self._progress.add_task("reading images and networks", total=None)
        self._finished = 0
        self._tasks: dict[int, AnyTask] = {}
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

    def started(self, task: AnyTask, worker: int) -> None:
        """Names the task at the bar of its worker."""
        self._tasks[worker], self._at_work[worker] = task, 0.0
        case, model, _ = task.place
        words = " · ".join(filter(None, (case, model, _shortened(task.labels))))
        description = words if len(words) <= 60 else words[:59] + "…"
        row = self._rows[worker] if self._rows else self._bar
        self._progress.update(row, description=description.replace("[", "\\["))
        if self._rows:
            self._progress.reset(row, total=task.passes)

    def passed(self, done: int, planned: int, worker: int) -> None:
        """Moves the bars within the task of a worker."""
        if worker not in self._tasks:
            return
        self._at_work[worker] = self._tasks[worker].passes * done / max(1, planned)
        self._show_passes()
        if self._rows:
            self._progress.update(self._rows[worker], completed=self._at_work[worker])

    def remaining(self, seconds: float) -> None:
        """Sets the clock that counts down."""
        self._left.ends = time.monotonic() + seconds

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
        for worker, task in list(self._tasks.items()):
            if (task.key, task.kind) == (record.key, record.kind):
                del self._tasks[worker], self._at_work[worker]
        self._show_passes()
        parts = (record.case, record.model, _shortened(record.methods))
        where = " · ".join(filter(None, parts))
        if record.status == "failed":
            complain(f"{where}: {record.reason}")
        elif not err.is_terminal:
            how = "kept from an earlier run" if reused else f"{record.seconds:.1f} s"
            err.print(f"done  {where}: {how}")

    def _show_passes(self) -> None:
        self._progress.update(self._bar, completed=self._finished + sum(self._at_work.values()))


class _TimeLeft(ProgressColumn):
    """The remaining time of the run, beside its first bar.

    Attributes:
        ends: The moment of the monotonic clock at which the run is expected to end.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ends: float | None = None

    def render(self, task: BarTask) -> Text:
        """How long it still takes; nothing beside the bars of workers."""
        if self.ends is None or task.id != 0:
            return Text("")
        return Text(f"{in_words(max(0.0, self.ends - time.monotonic()))} left", style="dim")


def _shortened(names: Sequence[str], most: int = 4) -> str:
    """The names; of many, the first and how many more."""
    more = [f"{len(names) - most} more"] if len(names) > most + 1 else []
    return ", ".join([*names[: most if more else None], *more])
