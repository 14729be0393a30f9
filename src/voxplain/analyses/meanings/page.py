"""What the report shows of the meanings of directions: sentences, tables and cards."""

from __future__ import annotations

import math
from collections.abc import Sequence

from voxplain.analyses.accentuated_units import accentuated_units
from voxplain.analyses.analysis import AnalysisInputs
from voxplain.analyses.dissection_cards import UnitAnswers, unit_card
from voxplain.analyses.meanings.measured import DirectionMeanings, own_pair
from voxplain.analyses.pictures import counted, with_interval
from voxplain.concepts.directions import (
    Directions,
    FoundDirectionRecord,
)
from voxplain.concepts.dissection.dissect import Dissection
from voxplain.records.analysis_page import Cell, PageCard, PageTable
from voxplain.records.dissection import PairDissected, UnitDissected
from voxplain.records.names import safe


def meanings_lead(found: DirectionMeanings) -> list[str]:
    """Sentences on what the directions stand for."""
    sentences: list[str] = []
    judged = [each for each in found.records if each.detector is not None]
    if judged:
        detectors = [each for each in judged if each.detector]
        concepts = dict.fromkeys(each.concept for each in detectors if each.concept)
        what = f", of {', '.join(concepts)}" if concepts else ""
        sentences.append(
            f"{counted(len(detectors), 'direction is a detector', 'directions are detectors')} of "
            f"{len(judged)} that agree with a concept{what}."
        )
    ahead = [row[0] for row in _by_concept(found) if _number(row[2]) > _number(row[4])]
    if found.dissection is not None:
        sentences.append(
            "On held-out patients a direction agrees more with these concepts than the best single "
            f"unit of the layer does: {', '.join(map(str, ahead))}."
            if ahead
            else "No direction agrees more with a concept than the best single unit of the layer."
        )
    tested = [each for each in found.records if math.isfinite(each.q_mean)]
    if tested:
        changing = sum(each.q_mean <= 0.05 for each in tested)
        sentences.append(
            f"The score changes more along {changing} of {len(tested)} active directions than "
            "along random activations."
        )
    return sentences


def _number(cell: Cell) -> float:
    return cell if isinstance(cell, float) else 0.0


def _by_concept(found: DirectionMeanings) -> list[list[Cell]]:
    """A row per concept: the best direction, unit, modality and random direction."""
    if found.dissection is None or found.units is None:
        return []
    rows: list[list[Cell]] = []
    for concept in found.dissection.record.concepts:
        if concept.kind != "mask":
            continue
        best, modality, random = (
            found.dissection.best(concept.name, origin) for origin in ("layer", "input", "random")
        )
        unit = found.units.best(concept.name)
        row: list[Cell] = [concept.name]
        for each in (best, unit, modality):
            row += [each.unit, each.iou] if each is not None else ["", None]
        rows.append([*row, random.iou if random is not None else None])
    return rows


def meanings_tables(found: DirectionMeanings) -> list[PageTable]:
    """What agrees best with every concept, and what every direction stands for."""
    tables = []
    if found.dissection is not None:
        tables.append(
            PageTable(
                title="The best direction of every concept",
                columns=[
                    "concept",
                    "best direction",
                    "IoU",
                    "best single unit",
                    "its IoU",
                    "best modality",
                    "its IoU",
                    "best direction of random weights",
                ],
                rows=_by_concept(found),
                note="Best where thresholds were chosen; IoU is of held-out patients.",
            )
        )
    if found.records:
        tables.append(_by_direction(found))
    return tables


def _by_direction(found: DirectionMeanings) -> PageTable:
    rows: list[list[Cell]] = [
        [
            each.name,
            each.concept or "",
            with_interval(each.iou, each.interval) if each.concept else "",
            {True: "yes", False: "no", None: "not judged"}[each.detector] if each.concept else "",
            _defined(each.share_positive),
            _defined(each.mean),
            _defined(each.q_share),
            _defined(each.q_mean),
        ]
        for each in found.records
    ]
    return PageTable(
        title="What every direction stands for",
        columns=[
            "direction",
            "concept",
            "IoU (95 % interval)",
            "detector",
            "cases with a positive change",
            "mean change",
            "q of the share",
            "q of the mean",
        ],
        rows=rows,
        note="The change of the score as all cells move along the direction, against random ones.",
        names=[_row_name(each.name) for each in found.records],
        cards=[""] * len(rows),
    )


def _defined(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _row_name(direction: str) -> str:
    return safe(f"meaning-{direction}")


def meanings_cards(
    inputs: AnalysisInputs,
    found: DirectionMeanings,
    directions: Directions,
    cards: int,
    accentuated: tuple[int, int],
) -> list[PageCard]:
    """A card for every direction that agrees with a concept, the best first; draws its figures.

    Args:
        inputs: Of the analysis.
        found: What the directions stand for.
        directions: The directions.
        cards: How many there are at most.
        accentuated: How many of them are accentuated, and the steps of every optimization.
    """
    dissection = found.dissection
    if dissection is None:
        return []
    records = {f"{directions.layer}/{each.name}": each for each in found.records}
    units = {unit.name: unit for unit in dissection.record.units if unit.origin == "layer"}
    known = [(units[name], own_pair(dissection, name)) for name in records]
    shown = [(unit, pair) for unit, pair in known if pair is not None]
    shown.sort(key=lambda each: -(each[1].iou or 0.0))
    shown = shown[:cards]
    answers = UnitAnswers(
        accentuated=accentuated_units(inputs, shown[: accentuated[0]], accentuated[1], directions),
        reading=directions,
    )
    return [
        _card(inputs, dissection, answers, unit, pair, records[unit.name]) for unit, pair in shown
    ]


def _card(
    inputs: AnalysisInputs,
    dissection: Dissection,
    answers: UnitAnswers,
    unit: UnitDissected,
    pair: PairDissected,
    record: FoundDirectionRecord,
) -> PageCard:
    card = unit_card(inputs, dissection, answers, unit, pair)
    facts = [*card.facts, ("best single unit", f"{with_interval(record.unit_iou)} ({record.unit})")]
    if math.isfinite(record.mean):
        change = f"{with_interval(record.mean)}, q {with_interval(record.q_mean)}"
        facts.append(("mean change of the score along it", change))
    links = [("row of this direction", _row_name(record.name))]
    return card.model_copy(update={"facts": facts, "links": links})


def with_cards(tables: Sequence[PageTable], cards: Sequence[PageCard]) -> list[PageTable]:
    """The tables, their rows leading to the cards that lead to them."""
    leads = {name: card.name for card in cards for _, name in card.links}
    return [
        table.model_copy(update={"cards": [leads.get(name, "") for name in table.names]})
        if table.names
        else table
        for table in tables
    ]
