"""What a method found beside its map: the strongest regions by name, how well a surrogate fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from voxplain.records.sidecar import Sidecar
from voxplain.viz.words import number, percent, sentence, setting

MOST = 8
"""Rows of a list; the others stand in the sidecar."""
_LISTED = 256
"""Regions that a sidecar lists at most."""

Rows = list[tuple[str, str]]
Entry = Mapping[str, Any]
_LISTS = {"regions": "regions", "channels": "channels of the layer"}
_HEADS = {"standard_error": "±"}
_DETERMINED = {
    True: "settled by the coalitions",
    False: "not settled by so few coalitions: the most even ones",
}
_IDENTITY = ("name", "rank", "channels", "value")


@dataclass(frozen=True)
class ListedRow:
    """One region or channel.

    Attributes:
        name: As the atlas or the image calls it.
        value: In words.
        others: What is listed beside it, in the order of the heads.
        bar: Where its bar lies, in percent of the width, as a style.
        positive: Whether it speaks for the score.
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
        caption: How many, of how many.
        kind: What they are, as the head of their column.
        heads: Of the columns beside the value.
        rows: In the order of the sidecar: the strongest first.
    """

    caption: str
    kind: str
    heads: tuple[str, ...]
    rows: tuple[ListedRow, ...]


def top_regions(sidecar: Sidecar) -> list[TopRegions]:
    """The lists among the findings of a map, cut to their strongest entries."""
    found = {name: _entries(sidecar, name) for name in _LISTS}
    return [_listed(name, entries) for name, entries in found.items() if entries]


def finding_facts(sidecar: Sidecar) -> Rows:
    """The numbers among the findings, in words."""
    facts = []
    for name, value in sidecar.findings.items():
        if name in _LISTS or value is None or (isinstance(value, list) and len(value) > MOST):
            continue
        facts.append(_fit(name, value) or (_words(name), _shown(value)))
    return facts


def summed(sidecar: Sidecar) -> float | None:
    """The sum over regions, where a map has one value per region and all of them are listed."""
    values = _values_of_all(sidecar)
    return sum(values) if values else None


def evidence_for(sidecar: Sidecar) -> float | None:
    """The share of positive values among those of all regions, by magnitude."""
    values = _values_of_all(sidecar)
    weight = sum(map(abs, values))
    return sum(value for value in values if value > 0) / weight if weight > 0 else None


def _values_of_all(sidecar: Sidecar) -> list[float]:
    """The values of named regions; none where the sidecar may hold a part of them only."""
    regions = _entries(sidecar, "regions")
    if len(regions) >= _LISTED or not all("name" in entry for entry in regions):
        return []
    return [float(entry["value"]) for entry in regions]


def _entries(sidecar: Sidecar, name: str) -> list[Entry]:
    """A list of regions or channels with their values."""
    found = sidecar.findings.get(name)
    entries: list[Entry] = found if isinstance(found, list) else []
    return entries if all("value" in entry for entry in entries) else []


def _listed(name: str, entries: Sequence[Entry]) -> TopRegions:
    heads = tuple(key for key in entries[0] if key not in _IDENTITY)
    values = [float(entry["value"]) for entry in entries]
    signed, largest = min(values) < 0, max(map(abs, values)) or 1.0
    rows = tuple(
        ListedRow(
            name=_name(entry),
            value=number(value, 3),
            others=tuple(_shown(entry.get(head)) for head in heads),
            bar=_bar(value / largest, signed),
            positive=value >= 0,
        )
        for entry, value in zip(entries[:MOST], values[:MOST], strict=True)
    )
    return TopRegions(
        caption=_caption(_LISTS[name], len(rows), len(entries)),
        kind="Channel" if name == "channels" else "Region",
        heads=tuple(_HEADS.get(head, _words(head)) for head in heads),
        rows=rows,
    )


def _bar(share: float, signed: bool) -> str:
    """From the left, or from the middle to the side of its sign."""
    if not signed:
        return f"left:0;width:{100 * share:.1f}%"
    width = 50 * abs(share)
    return f"left:{50 if share >= 0 else 50 - width:.1f}%;width:{width:.1f}%"


def _caption(what: str, shown: int, count: int) -> str:
    if shown == count:
        return (
            f"All {count} {what}, the strongest first" if count > 1 else f"The only one of {what}"
        )
    return f"The strongest {shown} of {count} {what}; the others stand in the sidecar"


def _name(entry: Entry) -> str:
    if "name" in entry:
        return str(entry["name"])
    if "channels" in entry:
        return ", ".join(map(str, entry["channels"]))
    return f"number {entry['rank']}" if "rank" in entry else "?"


def _fit(name: str, value: Any) -> tuple[str, str] | None:
    """How much of the scores a surrogate explains, and whether it could be found, in words."""
    if name == "determined":
        return "Values", _DETERMINED[bool(value)]
    if not name.startswith("r2") or not isinstance(value, (int, float)):
        return None
    where = name.removeprefix("r2").strip("_").replace("_", " ")
    seen = " on coalitions held out" if where.startswith("held out") else ""
    part = where.removeprefix("held out").strip()
    who = f"Surrogate ({part.removeprefix('of ')})" if part else "Surrogate"
    if value <= 0:
        return who, f"explains nothing of how the score varies{seen} (R² {number(value)})"
    return who, f"explains {percent(value)} of how the score varies{seen}"


def _shown(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return setting(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, (list, tuple)):
        return "; ".join(map(_shown, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(part)}" for key, part in value.items())
    return str(value)


def _words(name: str) -> str:
    return sentence(name.replace("_", " "))
