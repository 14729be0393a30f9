"""Facts of a map, as rows for a page or a notebook."""

from __future__ import annotations

import numpy as np

from voxplain.records.manifest import MapRecord
from voxplain.records.sidecar import Sidecar
from voxplain.viz.findings import evidence_for, finding_facts, summed
from voxplain.viz.scale import strongest
from voxplain.viz.volume import DisplayVolume
from voxplain.viz.words import duration, number, percent, place, sizes, title

Rows = list[tuple[str, str]]


def heading(record: MapRecord, sidecar: Sidecar) -> str:
    """The name of a map for people: ``Layer conductance, enc1``."""
    name = title(sidecar.label)
    layer = record.layer or (sidecar.layer.path if sidecar.layer else None)
    return name if not layer or layer in name else f"{name}, {layer}"


def map_facts(sidecar: Sidecar, map: DisplayVolume | None) -> Rows:
    """The table beside a map: what a reader may want to quote.

    Args:
        sidecar: Of the map.
        map: Its values, where they were read.
    """
    span = sidecar.range
    facts = [("Units", sidecar.units)]
    if map is not None:
        facts += _extremes(map, sidecar)
    facts.append(("Range", f"{number(span.minimum)} to {number(span.maximum)}"))
    facts.append(("Middle 99 %", f"{number(span.q005)} to {number(span.q995)}"))
    facts += _sum(sidecar)
    if span.zeros >= 0.005:
        facts.append(("Exactly zero", percent(span.zeros)))
    if sidecar.completeness is not None:
        facts.append(("Completeness residual", _completeness(sidecar)))
    if sidecar.flow is not None:
        facts.append(("Goes through the layer", f"{percent(sidecar.flow)} of S(x) − S(baseline)"))
    if sidecar.layer is not None:
        facts.append(("Layer", _layer(sidecar)))
    facts += finding_facts(sidecar)
    facts.append(("Cost", _cost(sidecar)))
    return facts


def _extremes(map: DisplayVolume, sidecar: Sidecar) -> Rows:
    total = np.nan_to_num(map.channel_sum())
    peak = strongest(total)
    facts = [("Strongest", f"{number(float(total[peak]))} at {_where(map, peak)}")]
    weight = float(np.abs(total).sum())
    if sidecar.sign == "signed" and weight > 0:
        share = evidence_for(sidecar)
        share = float(total[total > 0].sum()) / weight if share is None else share
        facts.append(("Balance", f"{percent(share)} evidence for, {percent(1 - share)} against"))
    return facts


def _where(map: DisplayVolume, index: tuple[int, ...]) -> str:
    if map.picture:
        return f"row {index[0]}, column {index[1]}"
    x, y, z = map.world(index)
    return f"x {place(x)}, y {place(y)}, z {place(z)} {map.unit}"


def _sum(sidecar: Sidecar) -> Rows:
    """What a map adds up to: over regions, or over voxels where their values may be added."""
    regions = summed(sidecar)
    if regions is not None:
        return [("Sum of regions", number(regions))]
    return [("Sum", number(sidecar.range.sum))] if sidecar.resampling == "mass" else []


def _completeness(sidecar: Sidecar) -> str:
    start = "nothing left" if _forwards_only(sidecar) else "baseline"
    return f"{percent(sidecar.completeness or 0.0)} of S(x) − S({start})"


def _forwards_only(sidecar: Sidecar) -> bool:
    """Whether no stream of the map had a backward pass."""
    return bool(sidecar.stream) and all("masks" in stream for stream in sidecar.stream)


def _layer(sidecar: Sidecar) -> str:
    layer = sidecar.layer
    assert layer is not None
    parts = [layer.path]
    if layer.channels:
        parts.append(f"{layer.channels} channels")
    if layer.shape:
        parts.append(f"{sizes(layer.shape)} cells")
    if layer.stride:
        parts.append(f"one per {sizes(layer.stride)} voxels")
    return ", ".join(parts)


def _cost(sidecar: Sidecar) -> str:
    cost = sidecar.cost
    kind = "forward" if _forwards_only(sidecar) else "pass"
    several = f"{kind}{'es' if kind == 'pass' else 's'}"
    text = f"{cost.passes:,} {kind if cost.passes == 1 else several}, {duration(cost.seconds)}"
    if cost.shared_with:
        text += f", shared with {', '.join(cost.shared_with)}"
    return text


def alternative(name: str, map: DisplayVolume, sidecar: Sidecar) -> str:
    """What a figure shows, for a reader who does not see it."""
    total = np.nan_to_num(map.channel_sum())
    peak = strongest(total)
    if not np.any(total):
        return f"{name}: the map is zero everywhere."
    value = float(total[peak])
    kind = "evidence for" if value > 0 else "evidence against"
    kind = kind if sidecar.sign == "signed" else "influence"
    view = "the image beside its overlay" if map.planar else "three planes and three projections"
    return f"{name}: {view}. Strongest {kind}, {number(value)}, at {_where(map, peak)}."
