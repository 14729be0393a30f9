"""Interventions as a study names them: units of concepts replaced, regions of images changed."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from voxplain.analyses.analysis import RESULT, Analysis, AnalysisCost, AnalysisInputs, register
from voxplain.analyses.concept_units import ConceptUnitSettings, split_cohort, units_of_concepts
from voxplain.analyses.pictures import with_interval
from voxplain.analyses.target_class import class_of, name_of
from voxplain.concepts.interventions import (
    AblationSettings,
    InterventionsRecord,
    interventions_record,
    region_swap,
    unit_ablation,
)
from voxplain.concepts.interventions.region_swap import SwapKind
from voxplain.concepts.links import ClassOutput
from voxplain.concepts.links.donors import ReplacedBy
from voxplain.records.analysis_page import AnalysisPage, Cell, PageTable
from voxplain.records.atomic import atomic_write


@register
class InterventionAnalysis(Analysis):
    """What the answer loses without the units of a concept, and by changes of image regions.

    Attributes:
        layers: Paths of the layers whose units are replaced.
        units: Units per concept and layer, at most.
        smallest_iou: What units must reach, on the cases that they are chosen on.
        replaced_by: What values of units become.
        null_sets: Random sets of as many units that each is compared with.
        swaps: Changes of the regions of classes: ``mean_shift`` and ``histogram`` give the region
            of one class the look of another, ``removal`` fills it in, ``insertion`` adds one.
        classes: Classes whose regions are changed; all but class 0 if empty.
        held_out: Share of the patients on which the answer is measured.
    """

    family: ClassVar[str] = "trails"
    needs_target: ClassVar[bool] = True
    needs_concepts: ClassVar[bool] = True

    name: Literal["interventions"] = "interventions"
    layers: tuple[str, ...] = Field(min_length=1)
    units: int = Field(default=4, ge=1)
    smallest_iou: float = Field(default=0.04, ge=0, lt=1)
    replaced_by: ReplacedBy = "resample"
    null_sets: int = Field(default=50, ge=0)
    swaps: tuple[SwapKind, ...] = ()
    classes: tuple[int, ...] = ()
    held_out: float = Field(default=0.5, gt=0, lt=1)

    def cost(self, cases: int) -> AnalysisCost:
        """Forwards of every case without each concept, and without each random set."""
        scored = max(1, round(self.held_out * cases))
        sets = len(self.layers) * (self.null_sets + 4)
        forwards = 3 * cases + scored * sets + len(self.swaps) * 4 * cases
        return AnalysisCost(forwards, forwards, "replacements of units and image regions")

    def perform(self, inputs: AnalysisInputs) -> None:
        """Replaces the units of every concept, and changes regions of the images."""
        label = class_of(inputs, self.key)
        selection, scored = split_cohort(inputs, self.held_out)
        asked = ConceptUnitSettings(self.layers, self.units, self.smallest_iou)
        nodes = units_of_concepts(inputs, asked, selection, scored)
        settings = AblationSettings(
            replaced_by=self.replaced_by, null_sets=self.null_sets, seed=inputs.seed
        )
        ablations = unit_ablation(inputs.model, scored, nodes, (_output(inputs, label),), settings)
        labels = self.classes or tuple(range(1, max(2, len(inputs.model.classes))))
        outputs = [_output(inputs, each) for each in labels]
        swaps = [
            effect
            for kind in self.swaps
            for effect in region_swap(inputs.model, inputs.cohort, outputs, kind, inputs.seed)
        ]
        record = interventions_record(ablations, swaps)
        _page(record).write(inputs.folder)
        atomic_write(inputs.folder / RESULT, record.model_dump_json(indent=1))


def _output(inputs: AnalysisInputs, label: int) -> ClassOutput:
    return ClassOutput(name_of(inputs, label), (label,), (label,))


def _page(record: InterventionsRecord) -> AnalysisPage:
    needed = [f"{each.node} ({each.measure})" for each in record.ablations if each.significant]
    lead = (
        f"The answer changes more without {', '.join(needed)} than without random sets of units."
        if needed
        else "Without the units of any concept the answer changes no more than without random "
        "sets of as many units."
    )
    tables = [_ablations(record)]
    if record.swaps:
        tables.append(_swaps(record))
    return AnalysisPage(title="What the answer needs", lead=[lead], tables=tables)


def _ablations(record: InterventionsRecord) -> PageTable:
    rows: list[list[Cell]] = [
        [
            f"{each.node}: {each.output}, {each.measure}",
            each.clean,
            with_interval(each.drop.mean, each.drop.interval),
            each.null,
            each.q,
        ]
        for each in record.ablations
    ]
    columns = ["without", "clean", "drop (95 % interval)", "drop without random sets", "q"]
    return PageTable(title="Units of concepts replaced", columns=columns, rows=rows)


def _swaps(record: InterventionsRecord) -> PageTable:
    rows: list[list[Cell]] = [
        [
            f"{each.kind}: {each.source} to {each.target}",
            with_interval(each.dice.mean, each.dice.interval),
            with_interval(each.logit.mean, each.logit.interval),
            float(each.dice.cases),
        ]
        for each in record.swaps
    ]
    columns = ["change of the image", "drop of Dice", "drop of the mean logit", "cases"]
    return PageTable(title="Regions of images changed", columns=columns, rows=rows)
