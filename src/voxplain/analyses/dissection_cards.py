"""The card of a unit: scores, verdicts, and the cases that show what it does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice

from voxplain.analyses.accentuated_units import AccentuatedUnit
from voxplain.analyses.analysis import AnalysisInputs
from voxplain.analyses.dissection_verdicts import detector_verdicts, rival
from voxplain.analyses.exemplar_pictures import ExemplarPictures
from voxplain.analyses.pictures import with_interval
from voxplain.concepts.dissection.dissect import Dissection
from voxplain.concepts.dissection.units import UnitReading
from voxplain.records.analysis_page import PageCard
from voxplain.records.dissection import PairDissected, UnitDissected
from voxplain.records.formulas import FormulasRecord
from voxplain.records.names import safe
from voxplain.records.relevance import RelevanceExemplarsRecord
from voxplain.targets import Target
from voxplain.viz.words import number


@dataclass(frozen=True, eq=False)
class UnitAnswers:
    """What was found of units beside their agreement with concepts.

    Attributes:
        formulas: Their names as formulas over concepts; None where they were not searched.
        relevance: In which cases the target draws on them; None where it was not measured.
        target: What relevance is about.
        about: The same in words.
        accentuated: Some of them, by name.
        reading: How they are read, where they are directions; None for channels.
    """

    formulas: FormulasRecord | None = None
    relevance: RelevanceExemplarsRecord | None = None
    target: Target | None = None
    about: str = ""
    accentuated: Mapping[str, AccentuatedUnit] = field(default_factory=dict)
    reading: UnitReading | None = None


def shown_units(found: Dissection, cards: int) -> list[tuple[UnitDissected, PairDissected]]:
    """The best unit of every concept, then further detectors, the best first.

    Args:
        found: What units detect.
        cards: How many there are at most.
    """
    scored = {pair.concept for pair in found.record.pairs if pair.iou is not None}
    names = [each.name for each in found.record.concepts if each.name in scored]
    pairs = [pair for pair in map(found.best, names) if pair is not None]
    pairs.sort(key=lambda pair: -(pair.iou or 0.0))
    more = (pair for pair in found.detectors if pair.origin == "layer" and pair not in pairs)
    units = {unit.name: unit for unit in found.record.units if unit.origin == "layer"}
    return [(units[pair.unit], pair) for pair in islice((*pairs, *more), cards)]


def card_name(pair: PairDissected) -> str:
    """By which the table refers to the card of a unit and a concept."""
    return safe(f"unit-{pair.unit}-{pair.concept}")


def row_name(concept: str) -> str:
    """By which cards refer to the row of a concept."""
    return safe(f"concept-{concept}")


def unit_card(
    inputs: AnalysisInputs,
    found: Dissection,
    answers: UnitAnswers,
    unit: UnitDissected,
    pair: PairDissected,
) -> PageCard:
    """The card of one unit for one concept; draws its figures.

    Args:
        inputs: Of the analysis.
        found: What units detect.
        answers: What else is known of units.
        unit: The unit.
        pair: Its score for the concept.
    """
    verdicts = detector_verdicts(found.record, pair)
    pictures = ExemplarPictures(inputs, unit, pair, answers.reading)
    kind = "Channel" if answers.reading is None else "Direction"
    figures = pictures.by_activation()
    if answers.relevance is not None and answers.target is not None:
        own = answers.relevance.of(unit.layer, unit.index)
        rule = answers.relevance.rule
        figures += pictures.by_relevance(own, answers.target, rule, answers.about)
    if unit.name in answers.accentuated:
        accentuated = answers.accentuated[unit.name]
        verdicts.append(accentuated.verdict)
        figures += [accentuated.figure] if accentuated.figure else []
    return PageCard(
        title=f"{unit.name}: {pair.concept}",
        subtitle=f"{kind} {unit.index} of layer {unit.layer}, compared with {pair.concept}.",
        facts=[*_scores(found, pair), *_named(answers, unit), *_relevant(answers, unit)],
        verdicts=verdicts,
        figures=figures,
        name=card_name(pair),
        links=[(f"all scores of {pair.concept}", row_name(pair.concept))],
    )


def _scores(found: Dissection, pair: PairDissected) -> list[tuple[str, str]]:
    rivals = (
        ("best modality", rival(found.record, pair, "input")),
        ("best random unit", rival(found.record, pair, "random")),
    )
    baselines = [
        (words, f"{number(other.iou)} ({other.unit})")
        for words, other in rivals
        if other is not None and other.iou is not None
    ]
    return [
        ("IoU", with_interval(pair.iou, pair.interval)),
        *baselines,
        ("unrelated masks", with_interval(pair.null)),
        ("on each case, with quartiles", with_interval(pair.case_median, pair.case_quartiles)),
        ("AUPRC", with_interval(pair.average_precision)),
        (
            "on from",
            f"{number(pair.threshold or 0.0)}, in {100 * (pair.on or 0.0):.1f} % of voxels",
        ),
        ("IoU by chance", with_interval(pair.chance)),
    ]


def _named(answers: UnitAnswers, unit: UnitDissected) -> list[tuple[str, str]]:
    formulas = answers.formulas.units if answers.formulas else ()
    return [
        ("formula", f"{each.formula}, IoU {with_interval(each.iou, each.interval)}")
        for each in formulas
        if each.unit == unit.name
    ]


def _relevant(answers: UnitAnswers, unit: UnitDissected) -> list[tuple[str, str]]:
    record = answers.relevance
    if record is None:
        return []
    own = record.of(unit.layer, unit.index)
    place = f"number {own.rank} of {record.sizes[unit.layer]} in the layer"
    return [(f"relevance for {answers.about}", f"{number(own.mean)} on average, {place}")]
