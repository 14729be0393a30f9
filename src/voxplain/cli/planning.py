"""What ``voxplain plan`` shows."""

from __future__ import annotations

from collections.abc import Sequence

from voxplain.cli.console import fact, out, shown, table
from voxplain.study import Study, Task, check_study
from voxplain.study.execution.time_limit import in_words
from voxplain.study.planning.evaluation_task import EvaluationTask
from voxplain.study.planning.timing import TimingTrial, time_models

_COLUMNS = ("network", "target", "methods", "stream", "cases", "passes", "forwards", "time")


def show_plan(study: Study, trust: bool) -> None:
    """Checks a study, times one pass per network, and prints its tasks, equal ones in one row.

    Args:
        study: What would be done.
        trust: Whether files that run code may be opened.
    """
    checked = check_study(study, trust=trust)
    probes = time_models(checked)
    alike: dict[tuple[str, ...], list[Task | EvaluationTask]] = {}
    everything: list[Task | EvaluationTask] = [*checked.plan.tasks, *checked.plan.evaluations]
    for task in everything:
        alike.setdefault(_kind(task), []).append(task)
    rows = [(*kind, *_sums(tasks, probes)) for kind, tasks in alike.items()]
    out.print(table(_COLUMNS, rows, right=("cases", "passes", "forwards", "time")))
    out.print()
    count, passes, forwards, duration = _sums(everything, probes)
    kinds = " and ".join(
        part
        for part in (f"{passes} passes" * bool(passes), f"{forwards} forwards" * bool(forwards))
        if part
    )
    fact("total", f"{count} tasks, {kinds}, about {duration} without blending and writing")
    allowed = study.execution.max_passes
    fact("allowed", f"{allowed:,} passes or forwards per method and image, or metric and map")
    for name, probe in probes.items():
        fact("memory", f"{name}: about {probe.megabytes:.0f} MB for one pass")
    fact("output", shown(study.folder))


def _kind(task: Task | EvaluationTask) -> tuple[str, ...]:
    combination = task.combination
    streams = "\n".join(task.streams)
    asked = "\n".join(task.labels)
    if isinstance(task, EvaluationTask):
        asked = "\n  ".join(("judged by:", *task.labels))
    return combination.model, str(combination.named), asked, streams


def _sums(
    tasks: Sequence[Task | EvaluationTask], probes: dict[str, TimingTrial]
) -> tuple[str, str, str, str]:
    """Tasks, passes forward and backward, passes forward only, time; empty where there are none."""
    forwards = sum(task.forwards for task in tasks)
    passes = sum(task.passes for task in tasks) - forwards
    seconds = sum(_seconds(task, probes[task.combination.model]) for task in tasks)
    return str(len(tasks)), _counted(passes), _counted(forwards), in_words(seconds)


def _counted(count: int) -> str:
    return f"{count:,}" if count else ""


def _seconds(task: Task | EvaluationTask, probe: TimingTrial) -> float:
    return task.forwards * probe.forward + (task.passes - task.forwards) * probe.seconds
