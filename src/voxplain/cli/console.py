"""How the command line speaks: results on standard output, everything else on standard error."""

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
    """One sentence per line on standard error, each marked as an error."""
    for line in text.splitlines():
        err.print(Text.assemble(("error ", "bold red"), line), soft_wrap=True)


def remark(text: str) -> None:
    """A sentence the reader should know, on standard error."""
    err.print(Text.assemble(("note  ", "bold yellow"), text), soft_wrap=True)


def fact(name: str, value: str, style: str = "") -> None:
    """One aligned line of a result."""
    out.print(Text.assemble((f"{name:<10}", "dim"), (value, style)), soft_wrap=True)


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str | Text]], right: Sequence[str] = ()
) -> Table:
    """A calm table: no frame, a rule under the head.

    Args:
        columns: Heads.
        rows: Cells as text, styled or not.
        right: The columns that hold numbers.
    """
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    return made


def shown(path: Path) -> str:
    """A path as a person would type it: relative to here where that is shorter."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
