"""Findings beside a map: its strongest regions by name, how well a surrogate fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from voxplain.records.sidecar import Sidecar
from voxplain.viz.words import number, percent, sentence, setting

MOST = 8
"""Regions or channels of a list at most; the sidecar lists more."""

_MOST_IN_SIDECAR = 256
"""Regions that a sidecar lists at most."""

Rows = list[tuple[str, str]]
"""Names and values, as text."""

Entry = Mapping[str, Any]
"""A region or channel as the sidecar lists it."""

_LISTS = {"regions": "regions", "channels": "channels of the layer"}
_HEADS = {"standard_error": "±"}
_DETERMINED = {
    True: "determined by the coalitions",
    False: "not determined by so few coalitions; those closest to equal are shown",
}
_IDENTITY = ("name", "rank", "channels", "value")


@dataclass(frozen=True)
class ListedRow:
    """One region or channel.

    Attributes:
        name: As the atlas or the image calls it.
        value: As text.
        others: The other columns, in the order of the heads.
        bar: Left edge and width of its bar in percent, as CSS.
        positive: Whether the value is evidence for the score.
    """

    name: str
    value: str
    others: tuple[str, ...]
    bar: str
    positive: bool


@dataclass(frozen=True)
class TopRegions:
    """The strongest regions or channels of a map.

    Attributes:
        caption: How many are listed, of how many.
        kind: ``Region`` or ``Channel``, the head of the first column.
        heads: Heads of the columns after the value.
        rows: The strongest first, as in the sidecar.
    """

    caption: str
    kind: str
    heads: tuple[str, ...]
    rows: tuple[ListedRow, ...]


def top_regions(sidecar: Sidecar) -> list[TopRegions]:
    """The strongest regions and channels among the findings of a map, a table for each kind."""
    lists = {name: _entries(sidecar, name) for name in _LISTS}
    return [_table(name, entries) for name, entries in lists.items() if entries]


def finding_facts(sidecar: Sidecar) -> Rows:
    """Names and values of the other findings, as text."""
    facts = []
    for name, value in sidecar.findings.items():
        if (
            name in _LISTS
            or name == "tree"
            or value is None
            or (isinstance(value, list) and len(value) > MOST)
        ):
            continue
        facts.append(_fit(name, value) or (_heading(name), _text(value)))
    return facts


def sum_of_regions(sidecar: Sidecar) -> float | None:
    """The sum of the values of all regions; None where the sidecar does not list all of them."""
    values = _values_of_regions(sidecar)
    return sum(values) if values else None


def evidence_share(sidecar: Sidecar) -> float | None:
    """Evidence for as a share of all evidence, over the regions; None where not all are listed."""
    values = _values_of_regions(sidecar)
    weight = sum(map(abs, values))
    return sum(value for value in values if value > 0) / weight if weight > 0 else None


def _values_of_regions(sidecar: Sidecar) -> list[float]:
    """The values of all named regions; empty where the sidecar may list only some of them."""
    regions = _entries(sidecar, "regions")
    if len(regions) >= _MOST_IN_SIDECAR or not all("name" in entry for entry in regions):
        return []
    return [float(entry["value"]) for entry in regions]


def _entries(sidecar: Sidecar, name: str) -> list[Entry]:
    """The regions or channels of a finding; empty where they have no values."""
    finding = sidecar.findings.get(name)
    entries: list[Entry] = finding if isinstance(finding, list) else []
    return entries if all("value" in entry for entry in entries) else []


def _table(name: str, entries: Sequence[Entry]) -> TopRegions:
    heads = tuple(key for key in entries[0] if key not in _IDENTITY)
    values = [float(entry["value"]) for entry in entries]
    signed, largest = min(values) < 0, max(map(abs, values)) or 1.0
    rows = tuple(
        ListedRow(
            name=_name(entry),
            value=number(value, 3),
            others=tuple(_text(entry.get(head)) for head in heads),
            bar=_bar(value / largest, signed),
            positive=value >= 0,
        )
        for entry, value in zip(entries[:MOST], values[:MOST], strict=True)
    )
    return TopRegions(
        caption=_caption(_LISTS[name], len(rows), len(entries)),
        kind="Channel" if name == "channels" else "Region",
        heads=tuple(_HEADS.get(head, _heading(head)) for head in heads),
        rows=rows,
    )


def _bar(share: float, signed: bool) -> str:
    """A bar from the left edge or, where there are both signs, from the middle, as CSS."""
    if not signed:
        return f"left:0;width:{100 * share:.1f}%"
    width = 50 * abs(share)
    return f"left:{50 if share >= 0 else 50 - width:.1f}%;width:{width:.1f}%"


def _caption(kind: str, listed: int, count: int) -> str:
    if listed < count:
        return f"The strongest {listed} of {count} {kind}; the sidecar has the others"
    return f"All {count} {kind}, the strongest first" if count > 1 else f"The only one of {kind}"


def _name(entry: Entry) -> str:
    if "name" in entry:
        return str(entry["name"])
    if "channels" in entry:
        return ", ".join(map(str, entry["channels"]))
    return f"number {entry['rank']}" if "rank" in entry else "?"


def _fit(name: str, value: Any) -> tuple[str, str] | None:
    """How well a surrogate fits the scores, and whether they determine it, in words."""
    if name == "determined":
        return "Values", _DETERMINED[bool(value)]
    if not name.startswith("r2") or not isinstance(value, (int, float)):
        return None
    suffix = name.removeprefix("r2").strip("_").replace("_", " ")
    data = " on coalitions held out" if suffix.startswith("held out") else ""
    component = suffix.removeprefix("held out").strip().removeprefix("of ")
    surrogate = f"Surrogate ({component})" if component else "Surrogate"
    if value <= 0:
        return surrogate, f"explains nothing of how the score varies{data} (R² {number(value)})"
    return surrogate, f"explains {percent(value)} of how the score varies{data}"


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return setting(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, (list, tuple)):
        return "; ".join(map(_text, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    return str(value)


def _heading(name: str) -> str:
    return sentence(name.replace("_", " "))
