"""Dissection as a study names it: which units detect which concepts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal, Self

from pydantic import Field

from voxplain.analyses.accentuated_units import RUNS, accentuated_units
from voxplain.analyses.analysis import RESULT, Analysis, AnalysisCost, AnalysisInputs, register
from voxplain.analyses.dissection_cards import UnitAnswers, shown_units
from voxplain.analyses.dissection_page import dissection_page
from voxplain.analyses.networks import compared_random_network
from voxplain.analyses.pictures import counted
from voxplain.analyses.target_class import AskedTarget, about_in_words
from voxplain.concepts.dissection.agreement import Threshold
from voxplain.concepts.dissection.dissect import Dissection, dissect
from voxplain.concepts.dissection.settings import DissectionSettings
from voxplain.concepts.formulas import compose
from voxplain.concepts.relevance_exemplars import relevance_exemplars
from voxplain.errors import VoxplainError
from voxplain.records.atomic import atomic_write
from voxplain.records.relevance import RelevanceExemplarsRecord
from voxplain.targets import Target

_PASSES = 3
"""Forwards of a case: its quantiles, its histograms, its exemplars; held-out cases take one."""


@register
class DissectionAnalysis(Analysis):
    """Which units detect which concepts, on held-out patients, beside baselines.

    Attributes:
        layers: Paths of layers; all convolutional stages, after the activation, if empty.
        threshold: How the activation from which on a unit counts as on is chosen.
        quantile: Share of the region in which a unit is on, for ``fixed_quantile``.
        region: ``foreground``, ``image``, or the name of a concept.
        smallest_iou: What a detector must exceed in any case.
        held_out: Share of the patients that scores are of.
        random_network: Whether a network with random weights is dissected beside it.
        formulas: Whether units are named by formulas over concepts.
        exemplars: Cases shown per unit at both ends.
        cards: Units that the report shows.
        relevance: Whether cards show the cases in which the target draws on the unit as well.
        target: What relevance is about; the first target of the study that means the same in every
            case if None.
        accentuated: Units, of those with a card, whose strongest case is accentuated.
        accentuation_steps: Of every optimization.
    """

    family: ClassVar[str] = "dissection"
    reference: ClassVar[str] = "Bau et al., Network Dissection, 2017"
    needs_concepts: ClassVar[bool] = True

    name: Literal["dissection"] = "dissection"
    layers: tuple[str, ...] = ()
    threshold: Threshold = "max_iou"
    quantile: float = Field(default=0.005, gt=0, lt=1)
    region: str = "foreground"
    smallest_iou: float = Field(default=0.04, ge=0, lt=1)
    held_out: float = Field(default=0.5, gt=0, lt=1)
    random_network: bool = True
    formulas: bool = True
    exemplars: int = Field(default=3, ge=0, le=20)
    cards: int = Field(default=12, ge=0, le=200)
    relevance: bool = True
    target: AskedTarget = None
    accentuated: int = Field(default=2, ge=0, le=200)
    accentuation_steps: int = Field(default=64, ge=1)

    def asked_about(self, targets: Sequence[Target]) -> Self:
        """About the first of the targets, unless it names its own."""
        if not self.relevance or self.target is not None or not targets:
            return self
        return self.model_copy(update={"target": targets[0]})

    def cost(self, cases: int) -> AnalysisCost:
        """Forwards of every case and of every card; passes for relevance; optimizations."""
        networks = 2 if self.random_network else 1
        shown = 2 * self.exemplars * self.cards
        forwards = (_PASSES * networks + self.formulas) * cases + 2 * shown
        passes = 0
        if self._about is not None:
            forwards += shown
            passes += cases + shown
        optimized = min(self.accentuated, self.cards)
        forwards += optimized * cases
        passes += optimized * RUNS * self.accentuation_steps
        words = "forwards for activations of every case"
        if passes:
            words += ", and passes for relevance and accentuation"
        return AnalysisCost(forwards + passes, forwards, words)

    @property
    def _about(self) -> Target | None:
        return self.target if self.relevance else None

    def perform(self, inputs: AnalysisInputs) -> None:
        """Dissects the network, and draws a card for every good unit."""
        settings = DissectionSettings(
            layers=self.layers,
            threshold=self.threshold,
            quantile=self.quantile,
            region=self.region,
            smallest_iou=self.smallest_iou,
            held_out=self.held_out,
            exemplars=self.exemplars,
            seed=inputs.seed,
        )
        random_model, remarks = compared_random_network(inputs, self.random_network)
        found = dissect(
            inputs.model,
            inputs.cohort,
            inputs.concepts,
            settings=settings,
            random_model=random_model,
        )
        formulas = None
        if self.formulas and inputs.concepts.masks:
            formulas = compose(inputs.model, inputs.cohort, inputs.concepts, found, bands=0)
            atomic_write(inputs.folder / "formulas.json", formulas.model_dump_json(indent=1))
        relevance, more = self._relevance(inputs, found)
        chosen = shown_units(found, min(self.accentuated, self.cards))
        answers = UnitAnswers(
            formulas=formulas,
            relevance=relevance,
            target=self._about,
            about=about_in_words(inputs, self._about) if self._about else "",
            accentuated=accentuated_units(inputs, chosen, self.accentuation_steps),
        )
        page = dissection_page(inputs, found, answers, self.cards, [*remarks, *more])
        found.export(inputs.folder / "units.parquet")
        page.write(inputs.folder)
        atomic_write(inputs.folder / RESULT, found.to_json())

    def _relevance(
        self, inputs: AnalysisInputs, found: Dissection
    ) -> tuple[RelevanceExemplarsRecord | None, list[str]]:
        """In which cases the target draws on units, and remarks on how that was found."""
        units = [unit for unit in found.record.units if unit.origin == "layer"]
        layers = [*dict.fromkeys(unit.layer for unit in units)]
        if self._about is None or not layers:
            return None, []
        try:
            record = relevance_exemplars(
                inputs.model,
                inputs.cohort,
                layers,
                self._about,
                count=self.exemplars,
                seed=inputs.seed,
            )
        except VoxplainError as error:
            return None, [f"The relevance of units was not measured: {error}"]
        atomic_write(inputs.folder / "relevance.json", record.model_dump_json(indent=1))
        return record, [*_remarks(record, about_in_words(inputs, self._about))]


def _remarks(record: RelevanceExemplarsRecord, about: str) -> Iterator[str]:
    if record.reason:
        yield f"Relevance is activation times gradient, as {record.reason}."
    if record.left_out:
        count = counted(len(record.left_out), "case has", "cases have")
        yield f"{count} nothing to explain for {about}; relevance is of the other cases."
