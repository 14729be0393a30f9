"""What ``voxplain plan`` shows."""

from __future__ import annotations

from collections.abc import Sequence

from voxplain.cli.console import fact, out, shown, table
from voxplain.study import Study, Task, check_study
from voxplain.study.limits import in_words
from voxplain.study.probe import Probe, probe_models

_COLUMNS = ("network", "target", "methods", "stream", "cases", "passes", "time")


def show_plan(study: Study, trust: bool) -> None:
    """Checks a study, times one pass per network, and prints its tasks, equal ones in one row.

    Args:
        study: What would be done.
        trust: Whether files that run code may be opened.
    """
    checked = check_study(study, trust=trust)
    probes = probe_models(checked)
    alike: dict[tuple[str, ...], list[Task]] = {}
    for task in checked.plan.tasks:
        alike.setdefault(_kind(task), []).append(task)
    rows = [(*kind, *_sums(tasks, probes)) for kind, tasks in alike.items()]
    out.print(table(_COLUMNS, rows, right=("cases", "passes", "time")))
    out.print()
    tasks = checked.plan.tasks
    count, passes, duration = _sums(tasks, probes)
    fact("total", f"{count} tasks, {passes} passes, about {duration} without blending and writing")
    for name, probe in probes.items():
        fact("memory", f"{name}: about {probe.megabytes:.0f} MB for one pass")
    fact("output", shown(study.folder))


def _kind(task: Task) -> tuple[str, ...]:
    subject = task.subject
    streams = "\n".join(task.streams)
    return subject.model, str(subject.named), "\n".join(task.labels), streams


def _sums(tasks: Sequence[Task], probes: dict[str, Probe]) -> tuple[str, str, str]:
    passes = sum(task.passes for task in tasks)
    seconds = sum(task.passes * probes[task.subject.model].seconds for task in tasks)
    return str(len(tasks)), str(passes), in_words(seconds)
