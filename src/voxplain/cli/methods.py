"""What ``voxplain methods`` shows."""

from __future__ import annotations

from rich.text import Text

from voxplain.attribution.describe.card import PICTURE, VOLUME, method_card
from voxplain.attribution.describe.families import family, in_order
from voxplain.attribution.describe.parameters import parameters
from voxplain.attribution.methods import methods as registry
from voxplain.cli.console import out, table
from voxplain.cli.declared import show
from voxplain.engine.method import Method

_COLUMNS = ("method", "what it shows", "cost per image")


def list_methods() -> None:
    """Every method, family by family, with its meaning and its cost."""
    kinds = [registry.get(name) for name in registry]
    rows: list[tuple[str | Text, ...]] = []
    for each in in_order(kind.family for kind in kinds):
        rows += [("", "", "")] * bool(rows)
        rows.append((Text(each.title, "bold cyan"), Text(each.idea, "dim"), ""))
        rows += [_row(kind) for kind in kinds if kind.family == each.name]
    out.print(table(_COLUMNS, rows))
    out.print()
    out.print(
        f"Cost with defaults: passes, forward and backward, or forwards alone, for a picture of "
        f"{_sized(PICTURE)} / a volume of {_sized(VOLUME)}. Methods that ask the same share them.",
        style="dim",
    )
    out.print("voxplain methods NAME shows formula, streams and parameters", style="dim")


def describe(name: str) -> None:
    """One method: meaning, formula, streams, what holds for its maps, parameters.

    Raises:
        ConfigError: With the nearest names, if there is none.
    """
    kind = registry.get(name)
    show(kind, family(kind.family).title, _facts(kind), parameters(kind))


def _row(kind: type[Method]) -> tuple[str, str, str]:
    return f"  {kind.title()}", kind.meaning(), method_card(kind).cost


def _facts(kind: type[Method]) -> list[tuple[str, str]]:
    shown = method_card(kind)
    facts = [("formula", kind.formula), ("paper", kind.reference), ("units", kind.units)]
    facts += [("stream", stream) for stream in shown.streams]
    facts.append(("cost", f"{shown.cost}{f' ({shown.reason})' if shown.reason else ''}"))
    facts += [("", text) for text in shown.holds]
    return facts


def _sized(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
