"""Directions that are found without concepts, as a study names them: parts, and sparse ones."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from voxplain.analyses.analysis import RESULT, Analysis, AnalysisCost, AnalysisInputs, register
from voxplain.analyses.pictures import counted, with_interval
from voxplain.concepts.directions import (
    SparseRecord,
    sparse_directions,
)
from voxplain.concepts.discovery import DiscoveryRecord, discover
from voxplain.concepts.discovery.discover import DiscoveryMethod
from voxplain.records.analysis_page import AnalysisPage, Cell, PageTable
from voxplain.records.atomic import atomic_write

_FAMILY = "directions"


@register
class DiscoveryAnalysis(Analysis):
    """Parts of activations, or groups of units, that are found without concepts.

    Attributes:
        layer: Path of the layer; the last feature layer if None.
        method: ``nmf`` for parts, ``profiles`` for groups of units.
        most: Largest number of components.
    """

    family: ClassVar[str] = _FAMILY

    name: Literal["discovery"] = "discovery"
    layer: str | None = None
    method: DiscoveryMethod = "nmf"
    most: int = Field(default=10, ge=2, le=100)

    def cost(self, cases: int) -> AnalysisCost:
        """A forward per case."""
        return AnalysisCost(cases, cases, "activations of every case")

    def perform(self, inputs: AnalysisInputs) -> None:
        """Finds as many components as are stable."""
        found = discover(
            inputs.model,
            inputs.cohort,
            self.layer,
            self.method,
            counts=tuple(range(2, self.most + 1)),
            concepts=list(inputs.concepts) if self.method == "profiles" else (),
            seed=inputs.seed,
        )
        found.directions.save(inputs.folder / "components.safetensors")
        _discovery_page(found.record).write(inputs.folder)
        atomic_write(inputs.folder / RESULT, found.record.model_dump_json(indent=1))


def _discovery_page(record: DiscoveryRecord) -> AnalysisPage:
    rows: list[list[Cell]] = [
        [each.name, each.stability, ", ".join(map(str, each.channels)), ", ".join(each.top_cases)]
        for each in record.components
    ]
    columns = ["component", "stability", "channels", "strongest in"]
    title = "Groups of units" if record.method == "profiles" else "Parts of activations"
    lead = [f"{counted(len(record.components), 'stable component')} in {record.layer}."]
    table = PageTable(title=title, columns=columns, rows=rows)
    return AnalysisPage(title=title, lead=lead, remarks=list(record.remarks), tables=[table])


@register
class SparseDirectionAnalysis(Analysis):
    """Directions of which every activation vector of a layer is a sum of few.

    Attributes:
        layer: Path of the layer; the last feature layer if None.
        directions: How many; twice the number of channels if None.
        active: How many of them a vector is made of, at the most.
        seeds: How many autoencoders are compared.
        steps: Of training each.
    """

    family: ClassVar[str] = _FAMILY

    name: Literal["sparse_directions"] = "sparse_directions"
    layer: str | None = None
    directions: int | None = Field(default=None, ge=2)
    active: int = Field(default=8, ge=1)
    seeds: int = Field(default=3, ge=1)
    steps: int = Field(default=2000, ge=1)

    def cost(self, cases: int) -> AnalysisCost:
        """A forward per case; training runs on activations alone."""
        return AnalysisCost(cases, cases, "activations of every case, then training")

    def perform(self, inputs: AnalysisInputs) -> None:
        """Trains autoencoders, and keeps the directions of the best one."""
        found = sparse_directions(
            inputs.model,
            inputs.cohort,
            self.layer,
            directions=self.directions,
            active=self.active,
            seeds=self.seeds,
            steps=self.steps,
            seed=inputs.seed,
        )
        found.directions.save(inputs.folder / "directions.safetensors")
        _sparse_page(found.record).write(inputs.folder)
        atomic_write(inputs.folder / RESULT, found.record.model_dump_json(indent=1))


def _sparse_page(record: SparseRecord) -> AnalysisPage:
    alive = [each for each in record.directions if each.frequency > 0]
    alive.sort(key=lambda each: -each.energy)
    rows: list[list[Cell]] = [
        [
            each.name,
            each.frequency,
            each.energy,
            with_interval(each.stability),
            f"{each.main_channel} ({each.purity:.2f})",
            ", ".join(each.top_cases),
        ]
        for each in alive[:40]
    ]
    columns = ["direction", "active in", "energy", "stability", "main channel", "strongest in"]
    lead = [
        f"{100 * record.explained:.0f} % of the variance of held-out activations of {record.layer} "
        f"with {record.mean_active:.1f} directions per vector "
        f"({100 * record.explained_by_axes:.0f} % with as many principal axes).",
        f"{counted(len(record.dead), 'direction is', 'directions are')} never active; over seeds "
        f"directions are matched with a cosine of {record.stability:.2f} "
        f"(chance {record.random_cosine:.2f}).",
    ]
    table = PageTable(title="Sparse directions", columns=columns, rows=rows)
    return AnalysisPage(
        title="Sparse directions", lead=lead, remarks=list(record.remarks), tables=[table]
    )
