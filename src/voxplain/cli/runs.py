"""Commands on run directories: status, compare, clean."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voxplain.cli.app import FAILED, app
from voxplain.cli.console import fact, out, short_path, table

if TYPE_CHECKING:
    from voxplain.study.inspection.compare import MapDifference

RunFolder = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run directory.", show_default=False)
]
_SHOWN = 5


@app.command()
def status(
    folder: RunFolder,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Show how far a run is, what its workers do, and what failed and why.

    It reads the files of the run alone, so that it works while the run goes on, and on any machine
    that sees them. Exit code 1: some task failed, or nobody is doing those that are left.
    """
    from voxplain.study.inspection.status import status_of
    from voxplain.study.planning.time_limit import in_words

    found = status_of(folder)
    counts = found.counts
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2))
    else:
        total = sum(counts.values())
        fact("done", f"{counts['done']} of {total} tasks")
        if counts["pending"]:
            left = f", about {in_words(found.left)}" if found.left is not None else ""
            fact("left", f"{counts['pending']} of {total} tasks{left}")
        if found.owner is not None:
            fact("running", f"{found.owner}; for {in_words(found.seconds)}")
        for worker, text in found.at_work.items():
            fact(f"worker {worker + 1}", text)
        for reason, tasks in found.failures.items():
            fact("failed", f"{len(tasks)} of {total} tasks: {reason}", "red")
            for task in tasks[:_SHOWN]:
                place = f"{task.case} · {task.model} · {task.target}"
                fact("", f"{place} · {', '.join(task.methods)}")
            if len(tasks) > _SHOWN:
                fact("", f"and {len(tasks) - _SHOWN} more")
    if counts["failed"] or (counts["pending"] and found.owner is None):
        raise typer.Exit(FAILED)


@app.command()
def compare(
    first: RunFolder,
    second: Annotated[Path, typer.Argument(metavar="RUN", help="Another one.", show_default=False)],
) -> None:
    """Show which maps of two runs differ, and by how much.

    Exit code 1: some map differs, or is in one of them only.
    """
    from voxplain.study.inspection.compare import compare_runs

    differences = compare_runs(first, second)
    others = [each for each in differences if each.state != "same"]
    if others:
        columns = ("case", "network", "target", "map", "", "cosine", "largest difference")
        out.print(table(columns, map(_row, others), right=columns[-2:]))
    counts = Counter(each.state for each in differences)
    fact("same", f"{counts['same']} of {len(differences)} maps")
    if others:
        raise typer.Exit(FAILED)


@app.command()
def clean(
    folder: RunFolder,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the files, and remove none.")
    ] = False,
) -> None:
    """Remove the files of a run that nothing refers to any more."""
    from voxplain.study.inspection import clean as cleaning

    files = cleaning.left_over(folder) if dry_run else cleaning.clean(folder)
    for file in files:
        fact("would go" if dry_run else "removed", short_path(file))
    fact("files", str(len(files)))


_STATES = {
    "different": "",
    "shape": "another grid",
    "first": "only in the first",
    "second": "only in the second",
}


def _row(difference: MapDifference) -> tuple[str, ...]:
    cosine = "" if difference.cosine is None else f"{difference.cosine:.4f}"
    largest = "" if difference.largest is None else f"{difference.largest:.2%}"
    place = (difference.case, difference.model, difference.target, difference.label)
    return (*place, _STATES[difference.state], cosine, largest)
