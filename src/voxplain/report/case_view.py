"""One case of a run in the words and numbers of the page."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import NDArray

from voxplain.records.manifest import CaseRecord, Manifest, MapRecord, PredictionRecord, TaskRecord
from voxplain.records.names import safe
from voxplain.records.sidecar import Sidecar
from voxplain.report.problems import Problem
from voxplain.report.trust.calibrated import CalibratedProbabilities
from voxplain.viz.findings import Rows, TopRegions, top_regions
from voxplain.viz.words import sizes

Array = NDArray[Any]


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
    def lists(self) -> list[TopRegions]:
        """The strongest regions or channels by name, where the method values them."""
        return top_regions(self.sidecar)

    def without_figure(self) -> MapView:
        """The same without its picture."""
        return replace(self, figure="")


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
    calibrated: CalibratedProbabilities = field(default_factory=dict)
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
