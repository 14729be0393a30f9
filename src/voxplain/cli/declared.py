"""How one method or one metric is shown on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.text import Text

from voxplain.attribution.describe.parameters import Parameter
from voxplain.cli.console import fact, out, table
from voxplain.declaration import Declaration


def show(
    kind: type[Declaration],
    chapter: str,
    facts: Iterable[tuple[str, str]],
    parameters: Sequence[Parameter],
) -> None:
    """Name and meaning, what else its docstring says, facts, parameters.

    Args:
        kind: The class.
        chapter: Where it is listed.
        facts: Titles and values; those without a value are left out.
        parameters: Of the class.
    """
    out.print(Text.assemble((kind.title(), "bold"), (f"  {chapter}", "dim")))
    out.print(kind.meaning())
    if kind.details():
        out.print(kind.details(), style="dim", soft_wrap=True, markup=False)
    for title, value in facts:
        if value:
            fact(title, value)
    rows = [(each.name, each.kind, each.default, each.meaning) for each in parameters]
    if rows:
        out.print()
        out.print(table(("parameter", "type", "default", ""), rows))
