"""Errors as a study names them: what causes false positives and negatives, and what corrects."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from voxplain.analyses.analysis import RESULT, Analysis, AnalysisCost, AnalysisInputs, register
from voxplain.analyses.pictures import kept_figure, with_interval
from voxplain.analyses.target_class import class_of
from voxplain.concepts.errors import ErrorCauses, ErrorSettings, explain_errors
from voxplain.concepts.errors.labeled_case import ErrorComponent
from voxplain.concepts.errors.settings import ErrorKind, Filling, Substitution
from voxplain.image import Image
from voxplain.records.analysis_page import AnalysisPage, Cell, PageCard, PageFigure, PageTable
from voxplain.records.atomic import atomic_write
from voxplain.records.error_causes import ErrorRecord
from voxplain.viz.exemplar_figure import exemplar_figure, overlaid

_ROWS = 6
"""Causes of an error that its card lists."""
_KINDS = {"fp": "false positive", "fn": "false negative"}


@register
class ErrorAnalysis(Analysis):
    """What carries the false positives and negatives of a class, and what corrects them.

    Attributes:
        layers: Whose units are replaced; the last feature layer if empty.
        kinds: False positives, false negatives, or both.
        value: The label of the class in the references; that of the target if None.
        most: Most errors in all, the largest.
        least: Smallest volume of an error, in mL (cm² in 2-D, voxels without physical size).
        units: Most units per layer that are replaced exactly.
        replacement: What replaces units and modalities.
        fill: What replaces structures.
        draws: Random regions and sets that each effect is compared with.
        corrections: Most corrections that are tried.
        held_out: Share of the patients on which corrections are judged.
    """

    family: ClassVar[str] = "errors"
    needs_target: ClassVar[bool] = True

    name: Literal["errors"] = "errors"
    layers: tuple[str, ...] = ()
    kinds: tuple[ErrorKind, ...] = ("fp", "fn")
    value: int | None = Field(default=None, ge=1)
    most: int = Field(default=8, ge=1)
    least: float = Field(default=0.0, ge=0)
    units: int = Field(default=32, ge=1)
    replacement: Substitution = "mean"
    fill: Filling = "surround"
    draws: int = Field(default=99, ge=1)
    corrections: int = Field(default=8, ge=0)
    held_out: float = Field(default=0.5, gt=0, lt=1)

    def cost(self, cases: int) -> AnalysisCost:
        """Replacements of every error with their nulls, and corrections of every case."""
        layers = max(1, len(self.layers))
        replaced = self.most * (self.units * layers + self.draws)
        passes = 3 * cases + replaced + 2 * self.corrections * cases
        return AnalysisCost(passes, passes - self.most, "replacements at errors, and corrections")

    def perform(self, inputs: AnalysisInputs) -> None:
        """Explains the errors, and draws a card for each."""
        label = class_of(inputs, self.key)
        settings = ErrorSettings(
            kinds=self.kinds,
            most=self.most,
            least=self.least,
            units=self.units,
            replacement=self.replacement,
            fill=self.fill,
            draws=self.draws,
            corrections=self.corrections,
            held_out=self.held_out,
            seed=inputs.seed,
        )
        found = explain_errors(
            inputs.model,
            inputs.cohort,
            label,
            inputs.concepts.masks,
            self.layers,
            value=label if self.value is None else self.value,
            settings=settings,
        )
        _page(inputs, found).write(inputs.folder)
        atomic_write(inputs.folder / RESULT, found.record.model_dump_json(indent=1))


def _page(inputs: AnalysisInputs, found: ErrorCauses) -> AnalysisPage:
    record = found.record
    drawn = {error.id: error for error in found.errors}
    tables = [_corrections(found)] if record.corrections else []
    return AnalysisPage(
        title=f"Errors of {record.class_name}: causes and corrections",
        lead=record.sentences,
        remarks=record.remarks,
        tables=tables,
        cards=[_card(inputs, error, drawn.get(error.id)) for error in record.errors],
    )


def _corrections(found: ErrorCauses) -> PageTable:
    rows: list[list[Cell]] = []
    for each in found.record.corrections:
        change = each.selection.dice_change
        on_others = each.held_out.dice_change if each.held_out else None
        rows.append(
            [
                each.name,
                each.own.removed,
                with_interval(change.mean, change.interval),
                with_interval(on_others.mean, on_others.interval) if on_others else "not measured",
                each.verdict,
            ]
        )
    return PageTable(
        title="Corrections",
        columns=[
            "correction",
            "share of its error removed",
            "change of Dice where it was chosen",
            "change of Dice on held-out patients",
            "verdict",
        ],
        rows=rows,
        note="Chosen by the Dice of all other cases of one half of the patients, judged on the "
        "other half.",
    )


def _card(inputs: AnalysisInputs, error: ErrorRecord, drawn: ErrorComponent | None) -> PageCard:
    effects = sorted(error.effects, key=lambda each: -each.removed)[:_ROWS]
    facts = [("volume", f"{with_interval(error.volume)} {error.unit}")]
    facts += [
        (each.cause, f"removes {100 * each.removed:.0f} %, q {with_interval(each.q)}")
        for each in effects
    ]
    return PageCard(
        title=f"{error.case}: {_KINDS[error.error]} {error.number}",
        subtitle=error.sentence,
        facts=facts,
        figures=[] if drawn is None else [_figure(inputs, error, drawn)],
    )


def _figure(inputs: AnalysisInputs, error: ErrorRecord, drawn: ErrorComponent) -> PageFigure:
    case = inputs.cohort[error.case]
    mask = _on_image(inputs, drawn.mask, case.image)
    overlay = overlaid(case.image, mask.float(), solid=mask, dashed=case.labels, limit=1.0)
    words = f"{_KINDS[error.error]} of case {error.case}"
    figure = exemplar_figure(
        words, "Filled: the error. Dashed: reference.", [(error.case, overlay)], "", ("", "error")
    )
    return kept_figure(inputs.folder, error.id, figure, words, words)


def _on_image(inputs: AnalysisInputs, mask: Tensor, image: Image) -> Tensor:
    """A mask of the output on the voxels of the image."""
    place = inputs.model.place(image.data[None])
    return mask if place is None or mask.shape == image.grid.shape else place.on_image(mask)
