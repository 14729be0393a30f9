"""What the report shows of a dissection: a table of concepts and a card for every good unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

from torch import Tensor

from voxplain.analyses.analysis import AnalysisInputs
from voxplain.analyses.pictures import counted, kept_figure, with_interval
from voxplain.concepts.dissection.dissect import Dissection
from voxplain.engine.context import Context
from voxplain.engine.observation import observe
from voxplain.engine.taps import Tap
from voxplain.records.analysis_page import (
    AnalysisPage,
    Cell,
    PageCard,
    PageFigure,
    PageTable,
    PageVerdict,
)
from voxplain.records.dissection import PairDissected, UnitDissected
from voxplain.records.formulas import FormulaFound, FormulasRecord
from voxplain.viz.exemplar_figure import exemplar_figure, overlaid
from voxplain.viz.words import number

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
    formulas: FormulasRecord | None,
    cards: int,
    remarks: Sequence[str],
) -> AnalysisPage:
    """The page of a dissection; draws the figures of its cards.

    Args:
        inputs: Of the analysis.
        found: What units detect.
        formulas: Their names as formulas over concepts.
        cards: Units that get a card, at most.
        remarks: Beside those of the dissection.
    """
    names = {each.unit: each for each in formulas.units} if formulas else {}
    return AnalysisPage(
        title="What units detect",
        lead=_lead(found),
        remarks=[*remarks, *found.record.remarks],
        verdicts=[_random_verdict(found)],
        tables=[_table(found)],
        cards=[_card(inputs, found, pair, names) for pair in _shown(found, cards)],
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


def _table(found: Dissection) -> PageTable:
    rows: list[list[Cell]] = []
    for concept in found.record.concepts:
        if concept.kind != "mask":
            continue
        unit, modality, random = (
            found.best(concept.name, origin) for origin in ("layer", "input", "random")
        )
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
    return PageTable(title="The best unit of every concept", columns=_COLUMNS, rows=rows, note=note)


def _shown(found: Dissection, cards: int) -> list[PairDissected]:
    """The best unit of every concept, then further detectors, the best first."""
    best = (found.best(name) for name in _concepts(found))
    pairs = [pair for pair in best if pair is not None]
    pairs.sort(key=lambda pair: -(pair.iou or 0.0))
    more = (pair for pair in found.detectors if pair.origin == "layer" and pair not in pairs)
    return [*islice((*pairs, *more), cards)]


def _card(
    inputs: AnalysisInputs,
    found: Dissection,
    pair: PairDissected,
    names: Mapping[str, FormulaFound],
) -> PageCard:
    unit = next(
        unit for unit in found.record.units if (unit.name, unit.origin) == (pair.unit, pair.origin)
    )
    facts = [
        ("IoU", with_interval(pair.iou, pair.interval)),
        ("on each case", with_interval(pair.case_median, pair.case_quartiles)),
        ("AUPRC", with_interval(pair.average_precision)),
        ("on at", f"{number(pair.threshold or 0.0)}, in {100 * (pair.on or 0.0):.1f} %"),
        ("chance", with_interval(pair.chance)),
        ("unrelated masks", with_interval(pair.null)),
    ]
    if unit.name in names:
        name = names[unit.name]
        facts.append(("formula", f"{name.formula}, IoU {with_interval(name.iou, name.interval)}"))
    return PageCard(
        title=f"{unit.name}: {pair.concept}",
        subtitle="Strongest cases above, weakest below.",
        facts=facts,
        verdicts=[_detects(pair)],
        figures=_figures(inputs, unit, pair),
    )


def _detects(pair: PairDissected) -> PageVerdict:
    if pair.detector is None:
        return PageVerdict(topic="detector", status="not measured", text="too few patients")
    bar = with_interval(pair.bar)
    text = f"lower end of the interval against {bar}; adjusted p {with_interval(pair.p_adjusted)}"
    return PageVerdict(topic="detector", status="pass" if pair.detector else "fail", text=text)


def _figures(inputs: AnalysisInputs, unit: UnitDissected, pair: PairDissected) -> list[PageFigure]:
    """The cases in which a unit is most and least active, with its mask and the concept."""
    figures = []
    for words, cases in (("strongest", unit.top), ("weakest", unit.bottom)):
        shown = [(each.case, *_maps(inputs, unit, pair, each.case)) for each in cases]
        if not shown:
            continue
        limit = max(float(values.abs().max()) for _, values, _ in shown) or 1.0
        overlays = []
        for name, values, concept in shown:
            image = inputs.cohort[name].image
            on = values >= (pair.threshold if pair.threshold is not None else float("inf"))
            picture = overlaid(image, values, solid=on, dashed=concept, limit=limit, sign="signed")
            overlays.append((name, picture))
        figure = exemplar_figure(
            f"{unit.name}  ·  {words} cases",
            f"Solid: where the unit is on. Dashed: {pair.concept}.",
            overlays,
            "activation",
            ("negative", "positive"),
        )
        name = f"{unit.name}_{pair.concept}_{words}"
        alt = f"activation of {unit.name} on the {words} cases, beside {pair.concept}"
        figures.append(kept_figure(inputs.folder, name, figure, f"The {words} cases.", alt))
    return figures


def _maps(
    inputs: AnalysisInputs, unit: UnitDissected, pair: PairDissected, case: str
) -> tuple[Tensor, Tensor | None]:
    """The map of a unit on a case, and the mask of the concept."""
    subject = inputs.cohort[case]
    tap = Tap(unit.layer)
    seen = observe(Context.open(inputs.model, subject.image, inputs.seed), (tap,))
    return seen.on_image(tap, [unit.index])[0].cpu(), inputs.concepts[pair.concept].of(subject)
