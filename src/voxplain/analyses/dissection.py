"""Dissection as a study names it: which units detect which concepts."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from voxplain.analyses.analysis import RESULT, Analysis, AnalysisCost, AnalysisInputs, register
from voxplain.analyses.dissection_page import dissection_page
from voxplain.analyses.networks import compared_random_network
from voxplain.concepts.dissection.agreement import Threshold
from voxplain.concepts.dissection.dissect import dissect
from voxplain.concepts.dissection.settings import DissectionSettings
from voxplain.concepts.formulas import compose
from voxplain.records.atomic import atomic_write

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

    def cost(self, cases: int) -> AnalysisCost:
        """Forwards of every case, and of the exemplars of every card."""
        networks = 2 if self.random_network else 1
        forwards = (_PASSES * networks + self.formulas) * cases + 2 * self.exemplars * self.cards
        return AnalysisCost(forwards, forwards, "forwards for activations of every case")

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
        page = dissection_page(inputs, found, formulas, self.cards, remarks)
        found.export(inputs.folder / "units.parquet")
        page.write(inputs.folder)
        atomic_write(inputs.folder / RESULT, found.to_json())
