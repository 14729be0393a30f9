"""What the report shows of a dissection: a table of concepts and a card for every good unit."""

from __future__ import annotations

from collections.abc import Sequence, Set

from voxplain.analyses.analysis import AnalysisInputs
from voxplain.analyses.dissection_cards import (
    UnitAnswers,
    card_name,
    row_name,
    shown_units,
    unit_card,
)
from voxplain.analyses.pictures import counted, with_interval
from voxplain.concepts.dissection.dissect import Dissection
from voxplain.records.analysis_page import AnalysisPage, Cell, PageTable, PageVerdict

_COLUMNS = [
    "concept",
    "share of region",
    "best unit",
    "IoU (95 % interval)",
    "Dice",
    "AUPRC",
    "best modality",
    "its IoU",
    "best random unit",
]


def dissection_page(
    inputs: AnalysisInputs,
    found: Dissection,
    answers: UnitAnswers,
    cards: int,
    remarks: Sequence[str],
) -> AnalysisPage:
    """The page of a dissection; draws the figures of its cards.

    Args:
        inputs: Of the analysis.
        found: What units detect.
        answers: What else is known of units.
        cards: Units that get a card, at most.
        remarks: Beside those of the dissection.
    """
    shown = shown_units(found, cards)
    return AnalysisPage(
        title="What units detect",
        lead=_lead(found),
        remarks=[*remarks, *found.record.remarks],
        verdicts=[_random_verdict(found)],
        tables=[_table(found, {card_name(pair) for _, pair in shown})],
        cards=[unit_card(inputs, found, answers, unit, pair) for unit, pair in shown],
    )


def _lead(found: Dissection) -> list[str]:
    record = found.record
    units = [unit for unit in record.units if unit.origin == "layer"]
    own = [pair for pair in found.detectors if pair.origin == "layer"]
    patients = counted(record.patients, "patient")
    if any(pair.detector is not None for pair in record.pairs):
        names = dict.fromkeys(pair.concept for pair in own)
        what = f", of {', '.join(names)}" if names else ""
        first = f"{counted(len({pair.unit for pair in own}), 'detector')} among {len(units)} units"
        sentences = [f"{first}{what}, judged on {patients} that chose nothing."]
    else:
        sentences = [f"{len(units)} units were compared with concepts on {patients}."]
    rivals = "the best input modality and the best unit of a network with random weights"
    ahead = [name for name in _concepts(found) if _is_ahead(found, name)]
    if ahead:
        sentences.append(
            f"On these patients the best unit is ahead of {rivals}: {', '.join(ahead)}."
        )
    others = [name for name in _concepts(found) if name not in ahead]
    if others:
        sentences.append(f"It is not ahead of {rivals}: {', '.join(others)}.")
    return sentences


def _concepts(found: Dissection) -> list[str]:
    """The concepts with scores that are parts of images."""
    scored = {pair.concept for pair in found.record.pairs if pair.iou is not None}
    return [each.name for each in found.record.concepts if each.name in scored]


def _is_ahead(found: Dissection, concept: str) -> bool:
    """Whether the best unit of a concept agrees more with it than any modality or random unit."""
    unit, *rivals = (found.best(concept, origin) for origin in ("layer", "input", "random"))
    best = max((rival.iou or 0.0 for rival in rivals if rival is not None), default=0.0)
    return unit is not None and (unit.iou or 0.0) > best


def _random_verdict(found: Dissection) -> PageVerdict:
    topic = "network with random weights"
    compared = any(unit.origin == "random" for unit in found.record.units)
    if not compared or all(pair.detector is None for pair in found.record.pairs):
        return PageVerdict(topic=topic, status="not measured")
    survived = [pair for pair in found.detectors if pair.origin == "random"]
    text = f"{counted(len(survived), 'of its units is', 'of its units are')} called a detector"
    return PageVerdict(topic=topic, status="fail" if survived else "pass", text=text)


def _table(found: Dissection, cards: Set[str]) -> PageTable:
    rows: list[list[Cell]] = []
    names, leads = [], []
    for concept in found.record.concepts:
        if concept.kind != "mask":
            continue
        unit, modality, random = (
            found.best(concept.name, origin) for origin in ("layer", "input", "random")
        )
        names.append(row_name(concept.name))
        leads.append("" if unit is None or card_name(unit) not in cards else card_name(unit))
        if unit is None:
            rows.append([concept.name, concept.share, concept.remark, *[None] * 6])
            continue
        rows.append(
            [
                concept.name,
                concept.share,
                unit.unit,
                with_interval(unit.iou, unit.interval),
                unit.dice,
                unit.average_precision,
                modality.unit if modality else "",
                modality.iou if modality else None,
                random.iou if random else None,
            ]
        )
    note = (
        "Best means best on the cases that thresholds were chosen on; all scores are of held-out "
        "patients, over all of their voxels in the region together."
    )
    return PageTable(
        title="The best unit of every concept",
        columns=_COLUMNS,
        rows=rows,
        note=note,
        names=names,
        cards=leads,
    )
