"""What ``voxplain methods`` prints."""

from __future__ import annotations

from rich.text import Text

from voxplain.attribution.describe.card import PICTURE, VOLUME, method_card
from voxplain.attribution.describe.families import family, in_order
from voxplain.attribution.describe.parameters import parameters
from voxplain.attribution.methods import methods as registry
from voxplain.cli.console import describe, out, table
from voxplain.engine.method import Method

_COLUMNS = ("method", "what it shows", "cost per image")


def list_methods() -> None:
    """Prints every method, family by family, with its meaning and its cost."""
    kinds = [registry.get(name) for name in registry]
    rows: list[tuple[str | Text, ...]] = []
    for heading in in_order(kind.family for kind in kinds):
        rows += [("", "", "")] * bool(rows)
        rows.append((Text(heading.title, "bold cyan"), Text(heading.idea, "dim"), ""))
        rows += [_row(kind) for kind in kinds if kind.family == heading.name]
    out.print(table(_COLUMNS, rows))
    out.print()
    out.print(
        f"Cost with defaults: passes, forward and backward, or forwards alone, for a picture of "
        f"{_in_words(PICTURE)} / a volume of {_in_words(VOLUME)}. Methods with equal streams share "
        "them.",
        style="dim",
    )
    out.print("voxplain methods NAME shows formula, streams and parameters", style="dim")


def describe_method(name: str) -> None:
    """Prints one method: meaning, formula, streams, what holds for its maps, parameters.

    Raises:
        ConfigError: With the nearest names, if there is none.
    """
    kind = registry.get(name)
    describe(
        kind.title(),
        family(kind.family).title,
        kind.meaning(),
        kind.details(),
        _facts(kind),
        [
            (parameter.name, parameter.kind, parameter.default, parameter.meaning)
            for parameter in parameters(kind)
        ],
    )


def _row(kind: type[Method]) -> tuple[str, str, str]:
    return f"  {kind.title()}", kind.meaning(), method_card(kind).cost


def _facts(kind: type[Method]) -> list[tuple[str, str]]:
    card = method_card(kind)
    return [
        ("formula", kind.formula),
        ("paper", kind.reference),
        ("units", kind.units),
        *(("stream", stream) for stream in card.streams),
        ("cost", f"{card.cost}{f' ({card.reason})' if card.reason else ''}"),
        *(("", text) for text in card.holds),
    ]


def _in_words(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
