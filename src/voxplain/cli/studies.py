"""Commands on whole studies: run, plan, report, schema, demo."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voxplain.cli.app import app, debugging
from voxplain.cli.console import err, fact, remark, shown
from voxplain.cli.flags import MaxPasses

if TYPE_CHECKING:
    from voxplain.study import Run, Study

StudyFile = Annotated[Path, typer.Argument(help="A study, YAML or JSON.", show_default=False)]
Trust = Annotated[
    bool, typer.Option("--trust", help="Open files that run code (pickles, bundles, .py files).")
]


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
    max_passes: MaxPasses = None,
    trust: Trust = False,
) -> None:
    """Run a study: every case, network, target and method; then write the report.

    Started again, it computes only what is missing. Exit code 0: all done. 1: some task failed
    (which one and why is said). 2: the request was wrong, and nothing was written.
    """
    from voxplain.study import Study

    chosen = output.absolute() if output else None
    asked = Study.load(study).allowing(max_passes)
    carry_out(asked, chosen, resume, trust, debugging(context))


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
    fact("study", shown(study))
    carry_out(Study.load(study), None, resume=True, trust=False, debug=debugging(context))


@app.command()
def plan(study: StudyFile, max_passes: MaxPasses = None, trust: Trust = False) -> None:
    """Show the tasks of a study, with passes, time and memory, and run nothing."""
    from voxplain.cli.planning import show_plan
    from voxplain.study import Study

    show_plan(Study.load(study).allowing(max_passes), trust)


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

    fact("report", shown(Run.load(folder).write_report(share=share)), "bold")


@app.command()
def schema() -> None:
    """Print the JSON schema of a study, for editors that complete from it."""
    import json

    from voxplain.study import Study

    typer.echo(json.dumps(Study.model_json_schema(by_alias=True), indent=2))


def carry_out(
    study: Study, output: Path | None, resume: bool, trust: bool, debug: bool = False
) -> None:
    """Runs a study with a progress bar, writes the report, and says where it is.

    Args:
        study: What to do.
        output: Another run directory than the study says.
        resume: Keep results that are still right.
        trust: Whether files that run code may be opened.
        debug: Whether to show where a failing task failed.

    Raises:
        typer.Exit: With code 1, if some task failed.
    """
    from voxplain.cli.progress import Bar
    from voxplain.study import run_study

    with Bar(debug) as bar:
        done = run_study(study, resume=resume, trust=trust, output=output, listener=bar)
    _summarize(done)
    with err.status("writing the report"):
        written = done.write_report()
    fact("report", shown(written), "bold")
    if done.failed:
        raise typer.Exit(done.exit_code)


def _summarize(done: Run) -> None:
    from voxplain.study.execution.time_limit import in_words

    manifest = done.manifest
    for prediction in manifest.predictions:
        asked = f"{prediction.in_words}: {prediction.score:.4g}"
        fact(prediction.case, f"{prediction.model} · {asked}")
    texts = [text for case in manifest.cases for text in case.warnings]
    texts += [text for task in manifest.tasks for text in task.warnings]
    for text in dict.fromkeys(texts):
        remark(text)
    count = len(manifest.maps)
    fact("maps", f"{count} in {shown(done.folder)}/maps, after {in_words(manifest.seconds)}")
    judged = done.folder / "metrics.parquet"
    if judged.is_file():
        fact("scores", shown(judged))
    if manifest.failed:
        fact("failed", f"{len(manifest.failed)} of {len(manifest.tasks)} tasks", "red")
