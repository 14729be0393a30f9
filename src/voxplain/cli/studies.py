"""Commands on whole studies: run, plan, report, schema, demo."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voxplain.cli.app import app, debugging
from voxplain.cli.console import err, fact, out, remark, short_path, table
from voxplain.cli.flags import MaxPasses

if TYPE_CHECKING:
    from voxplain.study import Plan, Run, Selection, Study
    from voxplain.study.planning.analysis_task import AnyTask
    from voxplain.study.planning.timing import Timings

StudyFile = Annotated[Path, typer.Argument(help="A study, YAML or JSON.", show_default=False)]
Trust = Annotated[
    bool,
    typer.Option("--trust", help="Run code of others: pickles, bundles, .py files, any factory."),
]
_PLAN_COLUMNS = ("network", "target", "methods", "stream", "cases", "passes", "forwards", "time")


@app.command()
def run(
    context: typer.Context,
    study: StudyFile,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Another run directory than the study's.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Keep results that are still right.")
    ] = True,
    workers: Annotated[
        str | None,
        typer.Option("--workers", help="Processes: a number, auto, or 0 for this process alone."),
    ] = None,
    only: Annotated[
        str, typer.Option("--only", help="Case/network/target/method; * stands for anything.")
    ] = "",
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Only what failed in the earlier run.")
    ] = False,
    max_passes: MaxPasses = None,
    trust: Trust = False,
) -> None:
    """Run a study: every case, network, target and method; then write the report.

    Started again, it computes only what is missing. Ctrl-C once lets running tasks end, twice drops
    them. Exit code 0: all done. 1: some task failed, and which one and why is printed. 2: the study
    was wrong, and nothing was written.
    """
    from voxplain.study import Selection, Study

    folder = output.absolute() if output else None
    chosen = Study.load(study).running(max_passes=max_passes, workers=workers)
    selection = Selection(only, retry_failed)
    carry_out(chosen, folder, resume, trust, debugging(context), selection)


@app.command()
def demo(
    context: typer.Context,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the study, its image and the run.")
    ] = Path("demo-run"),
) -> None:
    """Explain where a small network sees white matter in a brain, in under a minute."""
    from voxplain.demo import write_demo
    from voxplain.study import Study

    study = write_demo(output)
    fact("study", short_path(study))
    carry_out(Study.load(study), None, resume=True, trust=False, debug=debugging(context))


@app.command()
def plan(study: StudyFile, max_passes: MaxPasses = None, trust: Trust = False) -> None:
    """Show the tasks of a study, with passes, time and memory, and run nothing.

    Where an earlier run lies in the folder, it says what is kept of it, and why the rest is done.
    """
    from voxplain.study import Study, check_study
    from voxplain.study.execution.store import Store
    from voxplain.study.inspection.changes import reasons_to_run
    from voxplain.study.planning.time_limit import in_words
    from voxplain.study.planning.timing import time_models
    from voxplain.study.run import held_bytes, planned_workers

    chosen = Study.load(study).running(max_passes=max_passes)
    checked = check_study(chosen, trust=trust)
    timings = time_models(checked)
    for text in dict.fromkeys(text for case in checked.records.values() for text in case.warnings):
        remark(text)
    _show_tasks(checked.plan, timings)
    tasks = checked.plan.all_tasks
    workers = planned_workers(checked)
    store = Store(chosen.folder)
    reasons = reasons_to_run(checked, store)
    left = [task for task in tasks if task.id in reasons]
    duration = in_words(timings.makespan(left, workers))
    fact("workers", f"{workers}, about {duration} for the {len(left)} tasks that are left")
    if store.earlier() is not None:
        fact("kept", f"{len(tasks) - len(left)} of {len(tasks)} tasks of the earlier run")
        for reason, count in Counter(reasons.values()).most_common():
            fact("to do", f"{count} tasks: {reason}")
    limit = chosen.execution.max_passes
    fact("allowed", f"{limit:,} passes or forwards per method and image, or metric and map")
    for name in timings.trials:
        fact("memory", f"{name}: about {timings.megabytes(name):.0f} MB for one pass")
    fact("memory", f"about {held_bytes(checked) / 1e6:.0f} MB of networks and images per worker")
    fact("output", short_path(chosen.folder))


@app.command()
def report(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run directory.", show_default=False)
    ],
    share: Annotated[
        bool, typer.Option("--share", help="Without images: scores and regions only.")
    ] = False,
) -> None:
    """Write the report of a run again."""
    from voxplain.study import Run

    fact("report", short_path(Run.load(folder).write_report(share=share)), "bold")


@app.command()
def schema() -> None:
    """Print the JSON schema of a study, for editors that complete from it."""
    from voxplain.study import Study

    typer.echo(json.dumps(Study.model_json_schema(by_alias=True), indent=2))


def carry_out(
    study: Study,
    output: Path | None,
    resume: bool,
    trust: bool,
    debug: bool = False,
    selection: Selection | None = None,
) -> None:
    """Runs a study with a progress bar, writes the report, and prints where it is.

    Args:
        study: What to do.
        output: Another run directory than the study's.
        resume: Keep results that are still right.
        trust: Whether files that run code may be opened.
        debug: Whether to print the traceback of a failing task.
        selection: Which of the tasks that are left to do.

    Raises:
        typer.Exit: With code 1, if some task failed or was not reached.
    """
    from voxplain.cli.progress import Bar
    from voxplain.study import run_study

    with Bar(debug) as bar:
        done = run_study(
            study, resume=resume, trust=trust, output=output, listener=bar, selection=selection
        )
    _summarize(done)
    with err.status("writing the report"):
        page = done.write_report()
    fact("report", short_path(page), "bold")
    if done.exit_code:
        raise typer.Exit(done.exit_code)


def _summarize(done: Run) -> None:
    from voxplain.study.planning.time_limit import in_words

    manifest = done.manifest
    for prediction in manifest.predictions:
        answer = f"{prediction.in_words}: {prediction.score:.4g}"
        fact(prediction.case, f"{prediction.model} · {answer}")
    texts = [text for case in manifest.cases for text in case.warnings]
    texts += [text for task in manifest.tasks for text in task.warnings]
    for text in dict.fromkeys(texts):
        remark(text)
    count, duration = len(manifest.maps), in_words(manifest.seconds)
    fact("maps", f"{count} in {short_path(done.folder)}/maps, after {duration}")
    scores = done.folder / "metrics.parquet"
    if scores.is_file():
        fact("scores", short_path(scores))
    if manifest.failed:
        fact("failed", f"{len(manifest.failed)} of {len(manifest.tasks)} tasks", "red")
    if manifest.pending:
        fact("not done", f"{len(manifest.pending)} of {len(manifest.tasks)} tasks", "red")


def _show_tasks(plan: Plan, timings: Timings) -> None:
    """Prints the tasks, those that differ only by their case in one row, and their sum."""
    tasks = plan.all_tasks
    groups: dict[tuple[str, ...], list[AnyTask]] = {}
    for task in tasks:
        groups.setdefault(_row(task), []).append(task)
    rows = [(*row, *_sums(group, timings)) for row, group in groups.items()]
    out.print(table(_PLAN_COLUMNS, rows, right=("cases", "passes", "forwards", "time")))
    out.print()
    count, passes, forwards, duration = _sums(tasks, timings)
    counts = [f"{passes} passes"] * bool(passes) + [f"{forwards} forwards"] * bool(forwards)
    total = f"{count} tasks, {' and '.join(counts)}, about {duration}"
    fact("total", f"{total} without blending and writing")


def _row(task: AnyTask) -> tuple[str, ...]:
    labels = "\n".join(task.labels)
    if task.kind == "metrics":
        labels = "\n  ".join(("scored by:", *task.labels))
    return task.place[1], task.target_in_words, labels, "\n".join(task.streams)


def _sums(tasks: Sequence[AnyTask], timings: Timings) -> tuple[str, str, str, str]:
    """Tasks, passes forward and backward, passes forward only, time; empty where there are none."""
    from voxplain.study.planning.time_limit import in_words

    forwards = sum(task.forwards for task in tasks)
    passes = sum(task.passes for task in tasks) - forwards
    seconds = sum(map(timings.seconds, tasks))
    return str(len(tasks)), _counted(passes), _counted(forwards), in_words(seconds)


def _counted(count: int) -> str:
    return f"{count:,}" if count else ""
