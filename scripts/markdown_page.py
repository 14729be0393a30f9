"""Markdown for the pages that are written from a registry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from voxplain.attribution.describe.parameters import Parameter


def prose(kind: type) -> Iterator[str]:
    """The first line of a docstring, then the rest without the list of parameters."""
    first, _, rest = (kind.__doc__ or "").partition("\n")
    yield first.strip()
    rest = rest.split("Attributes:")[0]
    if rest.strip():
        yield " ".join(rest.replace("``", "`").split())


def table(parameters: Sequence[Parameter]) -> str:
    """A table of parameters with type, default and meaning."""
    rows = [
        (
            f"`{parameter.name}`",
            parameter.kind,
            f"`{parameter.default}`" if parameter.default != "-" else "",
            parameter.meaning,
        )
        for parameter in parameters
    ]
    return grid(("parameter", "type", "default", "meaning"), rows)


def grid(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', 'or') for cell in line)} |" for line in lines
    )


def listed(facts: Sequence[tuple[str, str]]) -> str:
    """A list of the facts that are not empty."""
    return "\n".join(f"- **{name}**: {value}" for name, value in facts if value)


def anchor(title: str) -> str:
    """The anchor of a heading."""
    return title.lower().replace(" ", "-")


def sized(shape: Sequence[int]) -> str:
    """``224 x 224``."""
    return " x ".join(map(str, shape))
