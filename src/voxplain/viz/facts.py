"""Facts about a map as rows of a table, and its figure in words."""

from __future__ import annotations

import numpy as np

from voxplain.records.manifest import MapRecord
from voxplain.records.sidecar import Sidecar
from voxplain.viz.findings import Rows, evidence_share, finding_facts, sum_of_regions
from voxplain.viz.scale import strongest
from voxplain.viz.volume import DisplayVolume
from voxplain.viz.words import coordinate, duration, number, percent, sizes, title


def heading(record: MapRecord, sidecar: Sidecar) -> str:
    """The name of a map as a heading: ``Layer conductance, enc1``."""
    name = title(sidecar.label)
    layer = record.layer or (sidecar.layer.path if sidecar.layer else None)
    return name if not layer or layer in name else f"{name}, {layer}"


def map_facts(sidecar: Sidecar, attribution_map: DisplayVolume | None) -> Rows:
    """Units, extremes, sums, findings and cost of a map.

    Args:
        sidecar: Of the map.
        attribution_map: Its values; None leaves out what only they tell.
    """
    values = sidecar.range
    facts = [("Units", sidecar.units)]
    if attribution_map is not None:
        facts += _extremes(attribution_map, sidecar)
    each = " of single channels" if len(sidecar.channels) > 1 else ""
    facts.append((f"Range{each}", f"{number(values.minimum)} to {number(values.maximum)}"))
    facts.append((f"Middle 99 %{each}", f"{number(values.q005)} to {number(values.q995)}"))
    facts += _sum(sidecar)
    if values.zeros >= 0.005:
        facts.append(("Exactly zero", percent(values.zeros)))
    if sidecar.completeness is not None:
        facts.append(("Completeness residual", _completeness(sidecar)))
    if sidecar.flow is not None:
        facts.append(("Goes through the layer", f"{percent(sidecar.flow)} of S(x) − S(baseline)"))
    if sidecar.layer is not None:
        facts.append(("Layer", _layer(sidecar)))
    if sidecar.layer_read is not None:
        facts.append(("Made from layer", sidecar.layer_read))
    facts += finding_facts(sidecar)
    facts.append(("Cost", _cost(sidecar)))
    return facts


def _extremes(attribution_map: DisplayVolume, sidecar: Sidecar) -> Rows:
    total = np.nan_to_num(attribution_map.channel_sum())
    peak = strongest(total)
    name = "Strongest sum of channels" if len(attribution_map.data) > 1 else "Strongest"
    facts = [(name, f"{number(float(total[peak]))} at {_position(attribution_map, peak)}")]
    weight = float(np.abs(total).sum())
    if sidecar.sign == "signed" and weight > 0:
        share = evidence_share(sidecar)
        share = float(total[total > 0].sum()) / weight if share is None else share
        facts.append(("Balance", f"{percent(share)} evidence for, {percent(1 - share)} against"))
    return facts


def _position(attribution_map: DisplayVolume, index: tuple[int, ...]) -> str:
    if attribution_map.picture:
        return f"row {index[0]}, column {index[1]}"
    x, y, z = map(coordinate, attribution_map.world(index))
    return f"x {x}, y {y}, z {z} {attribution_map.unit}"


def _sum(sidecar: Sidecar) -> Rows:
    """The sum over regions, or over voxels where their values may be added."""
    regions = sum_of_regions(sidecar)
    if regions is not None:
        return [("Sum of regions", number(regions))]
    return [("Sum", number(sidecar.range.sum))] if sidecar.resampling == "mass" else []


def _completeness(sidecar: Sidecar) -> str:
    baseline = "nothing left" if _forwards_only(sidecar) else "baseline"
    return f"{percent(sidecar.completeness or 0.0)} of S(x) − S({baseline})"


def _forwards_only(sidecar: Sidecar) -> bool:
    """Whether the map was made without backward passes."""
    return bool(sidecar.stream) and all("masks" in stream for stream in sidecar.stream)


def _layer(sidecar: Sidecar) -> str:
    layer = sidecar.layer
    assert layer is not None
    facts = [layer.path]
    if layer.channels:
        facts.append(f"{layer.channels} channels")
    if layer.shape:
        facts.append(f"{sizes(layer.shape)} cells")
    if layer.stride:
        facts.append(f"one per {sizes(layer.stride)} voxels")
    return ", ".join(facts)


def _cost(sidecar: Sidecar) -> str:
    cost = sidecar.cost
    kind, plural = ("forward", "forwards") if _forwards_only(sidecar) else ("pass", "passes")
    text = f"{cost.passes:,} {kind if cost.passes == 1 else plural}, {duration(cost.seconds)}"
    if cost.shared_with:
        text += f", shared with {', '.join(cost.shared_with)}"
    return text


def alternative_text(name: str, attribution_map: DisplayVolume, sidecar: Sidecar) -> str:
    """What the figure of a map shows, in words for readers who do not see it."""
    total = np.nan_to_num(attribution_map.channel_sum())
    peak = strongest(total)
    if not np.any(total):
        return f"{name}: the map is zero everywhere."
    value = float(total[peak])
    kind = "evidence for" if value > 0 else "evidence against"
    kind = kind if sidecar.sign == "signed" else "influence"
    kind += ", summed over channels" if len(attribution_map.data) > 1 else ""
    planar = attribution_map.planar
    view = "the image beside its overlay" if planar else "three planes and three projections"
    return (
        f"{name}: {view}. Strongest {kind}, {number(value)}, at {_position(attribution_map, peak)}."
    )
