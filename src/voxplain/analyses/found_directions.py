"""Directions that are found without concepts, as a study names them: parts, and sparse ones."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from pydantic import Field

from voxplain.analyses.accentuated_units import RUNS
from voxplain.analyses.analysis import RESULT, Analysis, AnalysisCost, AnalysisInputs, register
from voxplain.analyses.meanings import (
    FoundDirections,
    direction_meanings,
    meanings_cards,
    meanings_lead,
    meanings_tables,
    with_cards,
)
from voxplain.analyses.networks import compared_random_network
from voxplain.analyses.pictures import counted, with_interval
from voxplain.analyses.target_class import AskedTarget
from voxplain.concepts.directions import (
    Directions,
    SparseRecord,
    sparse_directions,
)
from voxplain.concepts.discovery import DiscoveryRecord, discover
from voxplain.concepts.discovery.discover import DiscoveryMethod
from voxplain.engine.cohort import Cohort
from voxplain.errors import VoxplainError
from voxplain.models.model import Model
from voxplain.records.analysis_page import AnalysisPage, Cell, PageTable
from voxplain.records.atomic import atomic_write
from voxplain.targets import Target

_FAMILY = "directions"
_DISSECTIONS = 6
"""Forwards of a case: quantiles, histograms and exemplars of directions, then of units."""


@dataclass(frozen=True, eq=False)
class _FoundByAnalysis:
    """Directions of one network, what is kept of how they were found, and its page."""

    directions: Directions
    record: DiscoveryRecord | SparseRecord
    page: AnalysisPage


class _FoundDirectionAnalysis(Analysis):
    """Finds directions on one part of the patients, and judges on the others what they stand for.

    Attributes:
        layer: Path of the layer; the last feature layer if None.
        held_out: Share of the patients that directions are judged on; they are found on the rest.
        random_network: Whether the same is done with random weights.
        target: Whose score is tested along the directions; the first target of the study that
            means the same in every case if None.
        random_directions: Random directions that each direction is compared with.
        exemplars: Cases shown per direction at both ends.
        cards: Directions that the report shows.
        accentuated: Directions, of those with a card, whose strongest case is accentuated.
        accentuation_steps: Of every optimization.
    """

    family: ClassVar[str] = _FAMILY
    revision: ClassVar[int] = 2
    file: ClassVar[str]

    layer: str | None = None
    held_out: float = Field(default=0.5, gt=0, lt=1)
    random_network: bool = True
    target: AskedTarget = None
    random_directions: int = Field(default=999, ge=39)
    exemplars: int = Field(default=3, ge=0, le=20)
    cards: int = Field(default=8, ge=0, le=200)
    accentuated: int = Field(default=1, ge=0, le=200)
    accentuation_steps: int = Field(default=64, ge=1)

    def asked_about(self, targets: Sequence[Target]) -> Self:
        """About the first of the targets, unless it names its own."""
        if self.target is not None or not targets:
            return self
        return self.model_copy(update={"target": targets[0]})

    def cost(self, cases: int) -> AnalysisCost:
        """Forwards of every case to find and to dissect, gradients of held-out cases."""
        forwards = (1 + _DISSECTIONS) * cases * (1 + self.random_network)
        forwards += 4 * self.exemplars * self.cards
        optimized = min(self.accentuated, self.cards)
        passes = optimized * RUNS * self.accentuation_steps
        passes += round(self.held_out * cases) if self.target is not None else 0
        words = "activations of every case, dissection, and gradients of held-out cases"
        return AnalysisCost(forwards + passes, forwards, words)

    @abstractmethod
    def _find(
        self, model: Model, inputs: AnalysisInputs, selection: Cohort, judged: Cohort
    ) -> _FoundByAnalysis:
        """Finds the directions of a network."""

    def perform(self, inputs: AnalysisInputs) -> None:
        """Finds directions, dissects them, and tests the score along them."""
        selection, judged = inputs.cohort.split(self.held_out, inputs.seed)
        found = self._find(inputs.model, inputs, selection, judged)
        found.directions.save(inputs.folder / self.file)
        control, remarks = self._control(inputs, selection, judged)
        parts = FoundDirections(found.directions, selection, judged, control)
        meanings = direction_meanings(
            inputs, parts, self.target, self.random_directions, self.exemplars
        )
        cards = meanings_cards(
            inputs,
            meanings,
            found.directions,
            self.cards,
            (self.accentuated, self.accentuation_steps),
        )
        page = found.page.model_copy(
            update={
                "lead": [*found.page.lead, *meanings_lead(meanings)],
                "remarks": [*found.page.remarks, *remarks, *meanings.remarks],
                "tables": [*with_cards(meanings_tables(meanings), cards), *found.page.tables],
                "cards": cards,
            }
        )
        page.write(inputs.folder)
        record = found.record.model_copy(update={"meanings": meanings.records})
        atomic_write(inputs.folder / RESULT, record.model_dump_json(indent=1))

    def _control(
        self, inputs: AnalysisInputs, selection: Cohort, judged: Cohort
    ) -> tuple[tuple[Model, Directions] | None, list[str]]:
        """A network with random weights and its directions, and remarks."""
        asked = self.random_network and bool(len(judged)) and bool(len(inputs.concepts))
        model, remarks = compared_random_network(inputs, asked)
        if model is None:
            return None, remarks
        try:
            return (model, self._find(model, inputs, selection, judged).directions), remarks
        except VoxplainError as error:
            return None, [*remarks, f"with random weights no directions are found: {error}"]


@register
class DiscoveryAnalysis(_FoundDirectionAnalysis):
    """Parts of activations, or groups of units, that are found without concepts.

    They are found on one part of the patients and dissected on the others like units; the score
    of the target is tested along them.

    Attributes:
        method: ``nmf`` for parts, ``profiles`` for groups of units.
        most: Largest number of components.
    """

    file: ClassVar[str] = "components.safetensors"

    name: Literal["discovery"] = "discovery"
    method: DiscoveryMethod = "nmf"
    most: int = Field(default=10, ge=2, le=100)

    def _find(
        self, model: Model, inputs: AnalysisInputs, selection: Cohort, judged: Cohort
    ) -> _FoundByAnalysis:
        """As many components as are stable."""
        found = discover(
            model,
            selection,
            self.layer,
            self.method,
            counts=tuple(range(2, self.most + 1)),
            concepts=list(inputs.concepts) if self.method == "profiles" else (),
            seed=inputs.seed,
        )
        return _FoundByAnalysis(found.directions, found.record, _discovery_page(found.record))


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
class SparseDirectionAnalysis(_FoundDirectionAnalysis):
    """Directions of which every activation vector of a layer is a sum of few.

    They are found on one part of the patients and dissected on the others like units; the score
    of the target is tested along them.

    Attributes:
        directions: How many; twice the number of channels if None.
        active: How many of them a vector is made of, at the most.
        seeds: How many autoencoders are compared.
        steps: Of training each.
    """

    file: ClassVar[str] = "directions.safetensors"

    name: Literal["sparse_directions"] = "sparse_directions"
    directions: int | None = Field(default=None, ge=2)
    active: int = Field(default=8, ge=1)
    seeds: int = Field(default=3, ge=1)
    steps: int = Field(default=2000, ge=1)

    def _find(
        self, model: Model, inputs: AnalysisInputs, selection: Cohort, judged: Cohort
    ) -> _FoundByAnalysis:
        """Trains autoencoders; the directions of the best one."""
        found = sparse_directions(
            model,
            selection,
            self.layer,
            directions=self.directions,
            active=self.active,
            seeds=self.seeds,
            steps=self.steps,
            held_out=judged,
            seed=inputs.seed,
        )
        return _FoundByAnalysis(found.directions, found.record, _sparse_page(found.record))


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
