"""Output of the command line: results on standard output, everything else on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

# Where no terminal tells its width, as in a pipe, lines may be longer than 80 characters.
out = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
err = Console(stderr=True, highlight=False)


def complain(text: str) -> None:
    """Prints errors on standard error, one per line of the text."""
    for line in text.splitlines():
        err.print(Text.assemble(("error ", "bold red"), line), soft_wrap=True)


def remark(text: str) -> None:
    """Prints a note to the reader on standard error."""
    err.print(Text.assemble(("note  ", "bold yellow"), text), soft_wrap=True)


def fact(name: str, value: str, style: str = "") -> None:
    """Prints one aligned line of a result."""
    out.print(Text.assemble((f"{name:<10}", "dim"), (value, style)), soft_wrap=True)


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str | Text]], right: Sequence[str] = ()
) -> Table:
    """A table without a frame, with bold column names.

    Args:
        columns: Names of the columns.
        rows: Cells as text, styled or not.
        right: The columns that hold numbers.
    """
    grid = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for column in columns:
        grid.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    return grid


def describe(
    title: str,
    family: str,
    meaning: str,
    details: str,
    facts: Iterable[tuple[str, str]],
    parameters: Sequence[tuple[str, str, str, str]],
) -> None:
    """Prints everything about one method or metric.

    Args:
        title: Its name, with synonyms.
        family: The heading it is listed under.
        meaning: One sentence.
        details: What else its docstring says; may be empty.
        facts: Names and values; those without a value are left out.
        parameters: Name, type, default and meaning of each.
    """
    out.print(Text.assemble((title, "bold"), (f"  {family}", "dim")))
    out.print(meaning)
    if details:
        out.print(details, style="dim", soft_wrap=True, markup=False)
    for name, value in facts:
        if value:
            fact(name, value)
    if parameters:
        out.print()
        out.print(table(("parameter", "type", "default", ""), parameters))


def short_path(path: Path) -> str:
    """A path as a person would type it: relative to the working folder where it lies in it."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
