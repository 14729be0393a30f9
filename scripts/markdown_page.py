"""What the pages that are made from a registry have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from voxplain.attribution.describe.parameters import Parameter


def prose(kind: type) -> Iterator[str]:
    """The first line of a docstring, and what follows it."""
    first, _, rest = (kind.__doc__ or "").partition("\n")
    yield first.strip()
    rest = rest.split("Attributes:")[0]
    if rest.strip():
        yield " ".join(rest.replace("``", "`").split())


def table(listed: Sequence[Parameter]) -> str:
    """Parameters with type and default."""
    rows = [
        (
            f"`{each.name}`",
            each.kind,
            f"`{each.default}`" if each.default != "-" else "",
            each.meaning,
        )
        for each in listed
    ]
    return grid(("parameter", "type", "default", "meaning"), rows)


def grid(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', 'or') for cell in line)} |" for line in lines
    )


def listed(facts: Sequence[tuple[str, str]]) -> str:
    """Facts that are known, as a list."""
    return "\n".join(f"- **{name}**: {value}" for name, value in facts if value)


def anchor(title: str) -> str:
    """Where a heading is."""
    return title.lower().replace(" ", "-")


def sized(shape: Sequence[int]) -> str:
    """``224 x 224``."""
    return " x ".join(map(str, shape))
