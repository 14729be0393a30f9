"""Directions as a study names them: of concepts, of scores, of parts, and sparse ones."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from voxplain.analyses.analysis import RESULT, Analysis, AnalysisCost, AnalysisInputs, register
from voxplain.analyses.networks import compared_random_network
from voxplain.analyses.pictures import counted, with_interval
from voxplain.concepts.directions import (
    ConceptDirectionRecord,
    SensitivitiesRecord,
    concept_direction,
    concept_sensitivity,
)
from voxplain.errors import VoxplainError
from voxplain.records.analysis_page import AnalysisPage, Cell, PageTable
from voxplain.records.atomic import atomic_write

_FAMILY = "directions"


@register
class SensitivityAnalysis(Analysis):
    """How the score of the target changes along the directions of concepts, with a test.

    Attributes:
        layers: Paths of layers.
        random_directions: Random concepts that each concept is compared with.
        held_out: Share of the patients that are judged on.
    """

    family: ClassVar[str] = _FAMILY
    reference: ClassVar[str] = "Kim et al., TCAV, 2018"
    needs_target: ClassVar[bool] = True
    needs_concepts: ClassVar[bool] = True

    name: Literal["concept_sensitivity"] = "concept_sensitivity"
    layers: tuple[str, ...] = Field(min_length=1)
    random_directions: int = Field(default=200, ge=39)
    held_out: float = Field(default=0.5, gt=0, lt=1)

    def cost(self, cases: int) -> AnalysisCost:
        """A forward per case for directions, and a gradient per held-out case."""
        return AnalysisCost(
            2 * cases, cases, "activations of every case, gradients of half of them"
        )

    def perform(self, inputs: AnalysisInputs) -> None:
        """Finds the directions of all concepts, and tests the score along them."""
        assert inputs.target is not None
        found = concept_sensitivity(
            inputs.model,
            inputs.cohort,
            list(inputs.concepts),
            self.layers,
            inputs.target,
            random_directions=self.random_directions,
            held_out=self.held_out,
            seed=inputs.seed,
        )
        for layer, directions in found.directions.items():
            directions.save(inputs.folder / f"{layer}.safetensors")
        _sensitivity_page(found.record).write(inputs.folder)
        atomic_write(inputs.folder / RESULT, found.record.model_dump_json(indent=1))


def _sensitivity_page(record: SensitivitiesRecord) -> AnalysisPage:
    significant = [row for row in record.rows if row.q_share <= 0.05]
    rows: list[list[Cell]] = [
        [
            f"{row.concept}, {row.layer}",
            with_interval(row.accuracy, row.accuracy_interval),
            with_interval(row.share_positive, None),
            f"{with_interval(row.random_share[0])} to {with_interval(row.random_share[1])}",
            row.mean,
            row.q_share,
            row.q_mean,
        ]
        for row in record.rows
    ]
    lead = [
        f"{record.target} depends on {counted(len(significant), 'direction')} of "
        f"{len(record.rows)} more than on random concepts of the same shape."
    ]
    columns = [
        "concept and layer",
        "accuracy (0.5 is chance)",
        "cases with a positive change",
        "random concepts",
        "mean change",
        "q of the share",
        "q of the mean",
    ]
    table = PageTable(title="Sensitivity to concepts", columns=columns, rows=rows)
    reasons = [f"case {case}: {why}" for case, why in record.without_score.items()]
    return AnalysisPage(
        title="What the score is sensitive to", lead=lead, remarks=reasons, tables=[table]
    )


@register
class ConceptDirectionAnalysis(Analysis):
    """Where concepts lie in a layer, and how many units it takes to find them.

    Attributes:
        layer: Path of the layer; the last feature layer if None.
        held_out: Share of the patients that are judged on.
        random_network: Whether the same is done with random weights.
    """

    family: ClassVar[str] = _FAMILY
    reference: ClassVar[str] = "Fong and Vedaldi, Net2Vec, 2018"
    needs_concepts: ClassVar[bool] = True

    name: Literal["concept_directions"] = "concept_directions"
    layer: str | None = None
    held_out: float = Field(default=0.5, gt=0, lt=1)
    random_network: bool = True

    def cost(self, cases: int) -> AnalysisCost:
        """Forwards of every case for every concept, twice with controls."""
        return AnalysisCost(6 * cases, 6 * cases, "activations of every case, per concept")

    def perform(self, inputs: AnalysisInputs) -> None:
        """Finds a direction for every concept; one that cannot be found is a remark."""
        random_model, remarks = compared_random_network(inputs, self.random_network)
        records: list[ConceptDirectionRecord] = []
        for number, concept in enumerate(inputs.concepts):
            try:
                found = concept_direction(
                    inputs.model,
                    inputs.cohort,
                    concept,
                    self.layer,
                    held_out=self.held_out,
                    random_network=random_model,
                    seed=inputs.seed,
                )
            except VoxplainError as error:
                remarks.append(f"{concept.name}: {error}")
                continue
            found.directions.save(inputs.folder / f"concept{number}.safetensors")
            records.append(found.record)
            remarks += found.record.remarks
            inputs.progress(number + 1, len(inputs.concepts))
        _directions_page(records, remarks).write(inputs.folder)
        text = ",\n".join(record.model_dump_json(indent=1) for record in records)
        atomic_write(inputs.folder / RESULT, f"[{text}]")


def _directions_page(records: list[ConceptDirectionRecord], remarks: list[str]) -> AnalysisPage:
    rows: list[list[Cell]] = []
    for record in records:
        single, together = record.curve[0], record.curve[-1]
        controls = [
            f"{name}: {with_interval(curve[-1].iou)}" for name, curve in record.controls.items()
        ]
        rows.append(
            [
                f"{record.concept}, {record.layer}",
                with_interval(single.iou, single.interval),
                ", ".join(f"{each.units}: {each.iou:.2f}" for each in record.curve[1:-1]),
                with_interval(together.iou, together.interval),
                "; ".join(controls),
            ]
        )
    columns = ["concept and layer", "single unit", "several units", "all units", "controls"]
    table = PageTable(title="IoU on held-out patients", columns=columns, rows=rows)
    lead = [f"Directions of {counted(len(records), 'concept')}, from one unit to all of them."]
    return AnalysisPage(
        title="Where concepts lie",
        lead=lead,
        remarks=list(dict.fromkeys(remarks)),
        tables=[table],
    )
