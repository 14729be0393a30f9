"""One case of a run in the words and numbers of the page."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.errors import VoxplainError
from voxplain.io.manifest import CaseRecord, Manifest, MapRecord, PredictionRecord, TaskRecord
from voxplain.io.names import safe
from voxplain.io.sidecar import Sidecar
from voxplain.report.calibrated import Chances
from voxplain.report.findings import Listed, evidence_for, finding_facts, listed, summed
from voxplain.report.scale import strongest
from voxplain.report.volume import Volume
from voxplain.report.words import duration, number, percent, place, sizes, title

Array = NDArray[Any]
Rows = list[tuple[str, str]]


@dataclass(frozen=True, eq=False)
class MapView:
    """One map as the page shows it.

    ``figure`` is a data URI and ``figure_file`` the name of the lossless file; both are empty in
    a report without images. ``alt`` says in words what the figure shows.
    """

    id: str
    record: MapRecord
    sidecar: Sidecar
    title: str
    facts: Rows
    alt: str = ""
    figure: str = ""
    figure_file: str = ""

    @property
    def lists(self) -> list[Listed]:
        """The strongest regions or channels by name, where the method values them."""
        return listed(self.sidecar)

    def without_figure(self) -> MapView:
        """The same without its picture."""
        return replace(self, figure="")


@dataclass(frozen=True)
class Problem:
    """Something that could not be shown, and why."""

    what: str
    why: str


@dataclass(eq=False)
class CaseView:
    """One case as the page shows it; filled part by part while its files are read.

    ``calibrated`` are probabilities after temperature scaling, ``viewer`` is what the interactive
    viewer needs to know, ``blobs`` the encoded volumes by element id.
    """

    record: CaseRecord
    facts: Rows
    predictions: list[PredictionRecord]
    failed: list[TaskRecord]
    maps: list[MapView] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    calibrated: Chances = field(default_factory=dict)
    viewer: dict[str, Any] | None = None
    blobs: dict[str, str] = field(default_factory=dict)

    @property
    def slug(self) -> str:
        """The case id as a part of an element id or a file name, one to one."""
        return safe(self.record.id)

    @property
    def size(self) -> int:
        """Bytes that this case adds to the page."""
        figures = sum(len(view.figure) for view in self.maps)
        return figures + sum(map(len, self.blobs.values()))

    @property
    def groups(self) -> list[tuple[str, str, list[MapView]]]:
        """The maps by model and target: model name, target in words, maps."""
        found: dict[tuple[str, str], list[MapView]] = {}
        for view in self.maps:
            key = (view.record.model, view.sidecar.target.in_words)
            found.setdefault(key, []).append(view)
        return [(model, words, views) for (model, words), views in found.items()]


def describe(case: CaseRecord, manifest: Manifest) -> CaseView:
    """The words of a case, before any file is read."""
    cell = "voxel" if len(case.shape) == 3 else "pixel"
    facts = [("Patient", case.patient)] if case.patient else []
    facts += [("Image", f"{sizes(case.shape)} {cell}s")]
    if case.unit == "mm":
        facts.append((cell.capitalize(), sizes(case.spacing, "mm")))
    facts.append(("Orientation", case.orientation or "unknown"))
    facts.append(("Channels" if len(case.channels) > 1 else "Channel", ", ".join(case.channels)))
    predictions = [part for part in manifest.predictions if part.case == case.id]
    failed = [task for task in manifest.failed if task.case == case.id]
    return CaseView(case, facts, predictions, failed)


def heading(record: MapRecord, sidecar: Sidecar) -> str:
    """The name of a map for people: ``Layer conductance, enc1``."""
    name = title(sidecar.label)
    layer = record.layer or (sidecar.layer.path if sidecar.layer else None)
    return name if not layer or layer in name else f"{name}, {layer}"


def map_facts(sidecar: Sidecar, map: Volume | None) -> Rows:
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


def _extremes(map: Volume, sidecar: Sidecar) -> Rows:
    total = np.nan_to_num(map.channel_sum())
    peak = strongest(total)
    facts = [("Strongest", f"{number(float(total[peak]))} at {_where(map, peak)}")]
    weight = float(np.abs(total).sum())
    if sidecar.sign == "signed" and weight > 0:
        share = evidence_for(sidecar)
        share = float(total[total > 0].sum()) / weight if share is None else share
        facts.append(("Balance", f"{percent(share)} evidence for, {percent(1 - share)} against"))
    return facts


def _where(map: Volume, index: tuple[int, ...]) -> str:
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


def alternative(name: str, map: Volume, sidecar: Sidecar) -> str:
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


def reason(error: Exception) -> str:
    """An error in words, without paths."""
    if isinstance(error, FileNotFoundError):
        return "its file is missing"
    if isinstance(error, VoxplainError):
        return str(error)
    return f"its file cannot be read ({type(error).__name__})"
