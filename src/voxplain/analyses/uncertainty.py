"""Uncertainty as a study names it: how sure a network is, and how far that can be trusted."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from voxplain.analyses.analysis import RESULT, Analysis, AnalysisCost, AnalysisInputs, register
from voxplain.analyses.pictures import counted, kept_figure, with_interval
from voxplain.concepts.uncertainty import Uncertainty, uncertainty_over_cases
from voxplain.engine.cohort import CohortCase
from voxplain.records.analysis_page import AnalysisPage, Cell, PageCard, PageTable
from voxplain.records.atomic import atomic_write
from voxplain.records.uncertainty import CohortUncertaintyRecord, UncertaintyRecord
from voxplain.viz.exemplar_figure import exemplar_figure, overlaid

_SAMPLES = 16
_KINDS = ("total", "aleatoric", "epistemic")


@register
class UncertaintyAnalysis(Analysis):
    """How sure a network is of its predictions, and whether errors lie where it is not.

    Attributes:
        method: What is sampled: ``augmentation`` or ``dropout``, or both joined by ``+``.
        samples: Predictions per case.
        asked: A class that is asked about against the rest; all classes if None.
        cards: Cases that the report shows.
    """

    family: ClassVar[str] = "uncertainty"
    reference: ClassVar[str] = "Kendall and Gal, 2017; Wang et al., 2019"

    name: Literal["uncertainty"] = "uncertainty"
    method: str = "augmentation"
    samples: int = Field(default=_SAMPLES, ge=2)
    asked: int | None = Field(default=None, ge=0, description="a class against the rest")
    cards: int = Field(default=12, ge=0, le=200)

    def cost(self, cases: int) -> AnalysisCost:
        """The samples of every case."""
        forwards = cases * (self.samples + 1)
        return AnalysisCost(forwards, forwards, f"{self.samples} predictions of every case")

    def perform(self, inputs: AnalysisInputs) -> None:
        """Samples predictions of every case, and writes their maps."""
        cards: list[PageCard] = []
        done = 0

        def keep(case: CohortCase, found: Uncertainty) -> None:
            nonlocal done
            found.save(inputs.folder, case.id)
            if len(cards) < self.cards:
                cards.append(_card(inputs, case, found))
            done += 1
            inputs.progress(done, len(inputs.cohort))

        record = uncertainty_over_cases(
            inputs.model,
            inputs.cohort,
            self.method,
            self.samples,
            inputs.seed,
            label=self.asked,
            keep=keep,
        )
        page = AnalysisPage(
            title="How sure the network is",
            lead=_lead(record),
            remarks=record.remarks,
            tables=[_table(record)],
            cards=cards,
        )
        page.write(inputs.folder)
        atomic_write(inputs.folder / RESULT, record.model_dump_json(indent=1))


def _lead(record: CohortUncertaintyRecord) -> list[str]:
    cases = counted(len(record.cases), "case")
    return [
        f"Uncertainty of the prediction in {cases}: total is the entropy of the mean probability; "
        "aleatoric what is uncertain in every sample; epistemic what samples disagree about."
    ]


def _table(record: CohortUncertaintyRecord) -> PageTable:
    rows: list[list[Cell]] = [
        [_in_words(name), with_interval(each.mean, each.interval), each.median, float(each.count)]
        for name, each in record.summaries.items()
    ]
    return PageTable(
        title="Over the cases",
        columns=["number", "mean (95 % interval)", "median", "cases"],
        rows=rows,
        note="AUPRC and ROC AUC: whether errors have a higher uncertainty than what is right.",
    )


def _in_words(name: str) -> str:
    """The name of a number as people read it."""
    for short, long in (("auprc", "AUPRC of errors"), ("roc_auc", "ROC AUC of errors")):
        if name.startswith(f"{short}_"):
            return f"{long}, {name.removeprefix(f'{short}_')} uncertainty"
    if name.removeprefix("mean_") in _KINDS:
        return f"mean {name.removeprefix('mean_')} uncertainty (nats)"
    return {"dice": "Dice", "error_share": "share of errors"}.get(name, name.replace("_", " "))


def _card(inputs: AnalysisInputs, case: CohortCase, found: Uncertainty) -> PageCard:
    record = found.record
    facts = [(f"mean {kind}", with_interval(value)) for kind, value in record.mean.items()]
    facts += _facts(record)
    figures = []
    if found.total.ndim:
        predicted = found.predicted[1:].any(dim=0) if len(found.predicted) > 1 else None
        limit = float(found.total.max()) or 1.0
        overlays = [
            (kind, overlaid(case.image, found.map(kind), solid=predicted, limit=limit))
            for kind in _KINDS
        ]
        figure = exemplar_figure(
            f"{case.id}  ·  uncertainty",
            "Solid: the prediction.",
            overlays,
            "nats",
            ("sure", "unsure"),
        )
        alt = f"total, aleatoric and epistemic uncertainty of case {case.id}"
        figures = [kept_figure(inputs.folder, f"{case.id}_uncertainty", figure, alt, alt)]
    return PageCard(title=case.id, facts=facts, figures=figures)


def _facts(record: UncertaintyRecord) -> list[tuple[str, str]]:
    facts = [
        (f"volume of {each.name}", f"{with_interval(each.mean, (each.low, each.high))} {each.unit}")
        for each in record.volumes
    ]
    if record.quality is not None:
        facts.append(("calibration error", with_interval(record.quality.calibration_error)))
        ranking = record.quality.rankings.get("total")
        if ranking is not None:
            chance = with_interval(ranking.chance)
            facts.append(("AUPRC of errors", f"{with_interval(ranking.auprc)}, chance {chance}"))
    return facts
