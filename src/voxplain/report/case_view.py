"""A case and its maps as the page shows them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import NDArray

from voxplain.records.manifest import CaseRecord, Manifest, MapRecord, PredictionRecord, TaskRecord
from voxplain.records.names import safe
from voxplain.records.sidecar import Sidecar
from voxplain.report.problems import Problem
from voxplain.report.trust.calibration import CalibratedProbabilities
from voxplain.viz.findings import Rows, TopRegions, top_regions
from voxplain.viz.words import sizes

Array = NDArray[Any]

WITHOUT_SIDES = "not known: the picture does not say which side of the patient is where"
"""The orientation of a 2-D image without directions in a patient."""


@dataclass(frozen=True, eq=False)
class MapView:
    """One map.

    Attributes:
        id: Of its elements on the page.
        record: Of the map in the manifest.
        sidecar: Of the map.
        title: Its name.
        facts: The table beside its figure.
        alt: What the figure shows, in words; empty without images.
        figure: A data URI; empty without images.
        figure_file: The lossless file of the figure, relative to the run.
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
    def top_regions(self) -> list[TopRegions]:
        """The strongest regions or channels by name, where the method has a value for them."""
        return top_regions(self.sidecar)

    def without_figure(self) -> MapView:
        """The map without its figure."""
        return replace(self, figure="")


@dataclass(eq=False)
class CaseView:
    """One case, filled while its files are read.

    Attributes:
        record: Of the case in the manifest.
        facts: Patient, size, orientation and channels.
        predictions: Of all networks.
        failed: Tasks that failed.
        maps: In the order of the manifest.
        problems: What could not be read.
        notes: How the embedded copies differ from the files.
        calibrated: Probabilities after temperature scaling.
        viewer: Data of the interactive viewer; None without images.
        blobs: Encoded volumes and pictures by element id.
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
        """The case id in a form for element ids and file names, different for different ids."""
        return safe(self.record.id)

    @property
    def size(self) -> int:
        """Bytes that this case adds to the page."""
        figures = sum(len(view.figure) for view in self.maps)
        return figures + sum(map(len, self.blobs.values()))

    @property
    def groups(self) -> list[tuple[str, str, list[MapView]]]:
        """The maps by model and target, as (model, target in words, maps)."""
        groups: dict[tuple[str, str], list[MapView]] = {}
        for view in self.maps:
            key = (view.record.model, view.sidecar.target.in_words)
            groups.setdefault(key, []).append(view)
        return [(model, words, views) for (model, words), views in groups.items()]


def describe(case: CaseRecord, manifest: Manifest) -> CaseView:
    """A case as the manifest describes it, without maps."""
    cell = "voxel" if len(case.shape) == 3 else "pixel"
    facts = [("Patient", case.patient)] if case.patient else []
    facts += [("Image", f"{sizes(case.shape)} {cell}s")]
    if case.unit == "mm":
        facts.append((cell.capitalize(), sizes(case.spacing, "mm")))
    facts.append(("Orientation", _orientation(case)))
    facts.append(("Channels" if len(case.channels) > 1 else "Channel", ", ".join(case.channels)))
    predictions = [prediction for prediction in manifest.predictions if prediction.case == case.id]
    failed = [task for task in manifest.failed if task.case == case.id]
    return CaseView(case, facts, predictions, failed)


def _orientation(case: CaseRecord) -> str:
    """Where the axes point in the patient, as letters, or that it is not known."""
    if case.orientation and not (len(case.shape) == 2 and case.unit == "pixel"):
        return case.orientation
    return WITHOUT_SIDES if len(case.shape) == 2 else "not known"
