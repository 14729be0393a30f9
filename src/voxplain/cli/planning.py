"""What ``voxplain plan`` shows."""

from __future__ import annotations

from voxplain.cli.console import fact, out, shown, table
from voxplain.study import Plan, Study, Task, check_study
from voxplain.study.limits import in_words
from voxplain.study.probe import Probe, probe_models


def show_plan(study: Study, trust: bool) -> None:
    """Checks a study, times one pass per network, and prints its tasks.

    Args:
        study: What would be done.
        trust: Whether files that run code may be opened.
    """
    checked = check_study(study, trust=trust)
    probes = probe_models(checked)
    plan = checked.plan
    columns = ("case", "network", "target", "methods", "stream", "passes", "time")
    rows = [_row(task, probes) for task in plan.tasks]
    out.print(table(columns, rows, right=("passes", "time")))
    out.print()
    subjects = (
        f"{len(checked.cases)} cases, {len(checked.models)} networks, {len(plan.tasks)} tasks"
    )
    fact("total", f"{subjects}, {plan.passes} passes, about {in_words(_seconds(plan, probes))}")
    for name, probe in probes.items():
        fact("memory", f"{name}: about {probe.megabytes:.0f} MB for one pass at a time")
    fact("output", shown(study.folder))


def _row(task: Task, probes: dict[str, Probe]) -> tuple[str, ...]:
    subject = task.subject
    seconds = probes[subject.model].seconds * task.passes
    return (
        subject.case,
        subject.model,
        str(subject.target),
        ", ".join(task.labels),
        "; ".join(task.streams),
        str(task.passes),
        in_words(seconds),
    )


def _seconds(plan: Plan, probes: dict[str, Probe]) -> float:
    return sum(probes[task.subject.model].seconds * task.passes for task in plan.tasks)
