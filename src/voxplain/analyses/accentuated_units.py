"""What drives a unit on its strongest case: accentuation, and whether to believe it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from voxplain.analyses.analysis import AnalysisInputs
from voxplain.concepts.directions import Directions
from voxplain.errors import VoxplainError
from voxplain.records.analysis_page import PageFigure, PageVerdict
from voxplain.records.dissection import PairDissected, UnitDissected
from voxplain.records.names import safe
from voxplain.records.synthesis import ReliabilityRecord
from voxplain.synthesis import ImageStatistics, measure, reliability_panel, synthesize
from voxplain.synthesis.methods.accentuation import FeatureAccentuation
from voxplain.synthesis.objectives.base import Objective
from voxplain.synthesis.objectives.layers import ChannelActivation, DirectionActivation

RUNS = 4
"""Optimizations of a unit: its own, two more seeds, and one on a network with random weights."""

_TOPIC = "accentuation"


@dataclass(frozen=True, eq=False)
class AccentuatedUnit:
    """The accentuation of one unit.

    Attributes:
        verdict: Whether it is to be believed, or why there is none.
        figure: The picture with the verdicts of its reliability panel; None without one.
    """

    verdict: PageVerdict
    figure: PageFigure | None = None


def accentuated_units(
    inputs: AnalysisInputs,
    units: Sequence[tuple[UnitDissected, PairDissected]],
    steps: int,
    directions: Directions | None = None,
) -> dict[str, AccentuatedUnit]:
    """The strongest case of each unit, changed so that it drives the unit more, by unit.

    Images, records and verdicts are written into the folder of the analysis.

    Args:
        inputs: Of the analysis.
        units: Each with its score for the concept of its card.
        steps: Of every optimization.
        directions: What the units are, where they are no channels.
    """
    found: dict[str, AccentuatedUnit] = {}
    statistics: ImageStatistics | None = None
    for unit, pair in units:
        if unit.name in found:
            continue
        try:
            statistics = statistics or measure(inputs.cohort)
            driven = _objective(unit, directions)
            found[unit.name] = _accentuated(inputs, statistics, unit, pair, driven, steps)
        except VoxplainError as error:
            verdict = PageVerdict(topic=_TOPIC, status="not measured", text=str(error))
            found[unit.name] = AccentuatedUnit(verdict)
    return found


def _objective(unit: UnitDissected, directions: Directions | None) -> Objective:
    """What is driven: a channel, or dot * cosine of a direction."""
    if directions is None:
        return ChannelActivation(layer=unit.layer, channel=unit.index)
    vector, title = directions.vectors[unit.index], directions.names[unit.index]
    return DirectionActivation(
        layer=unit.layer, direction=tuple(vector.tolist()), title=safe(title)
    )


def _accentuated(
    inputs: AnalysisInputs,
    statistics: ImageStatistics,
    unit: UnitDissected,
    pair: PairDissected,
    driven: Objective,
    steps: int,
) -> AccentuatedUnit:
    case = unit.top[0].case if unit.top else inputs.cohort.ids[0]
    image = inputs.cohort[case].image
    (synthesis,) = synthesize(
        inputs.model,
        image,
        FeatureAccentuation(steps=steps),
        driven,
        statistics=statistics,
        seed=inputs.seed,
    ).values()
    if max(synthesis.scores) <= max(synthesis.start_scores):
        text = f"in {steps} steps no change of case {case} drove the unit more than its penalty"
        return AccentuatedUnit(PageVerdict(topic=_TOPIC, status="not measured", text=text))
    known = pair.iou is not None and pair.interval is not None
    score = (pair.iou or 0.0, *(pair.interval or (0.0, 0.0))) if known else None
    panel = reliability_panel(
        inputs.model, synthesis, inputs.cohort, image=image, dissection=score
    ).record
    path = synthesis.with_reliability(panel).save(inputs.folder, case)
    caption = f"Case {case}, changed so that it drives {unit.name} more; synthesized, no patient."
    figure = PageFigure(
        file=f"{path.stem}.png",
        caption=caption,
        alt=f"case {case} beside the same image accentuated for {unit.name}",
        verdicts=_items(panel),
    )
    return AccentuatedUnit(_belief(panel), figure)


def _items(panel: ReliabilityRecord) -> list[PageVerdict]:
    return [
        PageVerdict(topic=item.item, status=item.verdict, text=item.in_words)
        for item in panel.items
    ]


def _belief(panel: ReliabilityRecord) -> PageVerdict:
    """One verdict of all items: failed as soon as one of them failed."""
    failed = [item.item for item in panel.items if item.verdict == "fail"]
    measured = sum(item.verdict != "not measured" for item in panel.items)
    if panel.caption:
        text = f"{panel.caption}: do not read the picture as what the unit detects"
    elif failed:
        text = f"to be read with care: it fails {', '.join(failed)}"
    else:
        text = f"to be believed as far as was measured: it passes all {measured} checks"
    return PageVerdict(topic=_TOPIC, status="fail" if failed else "pass", text=text)
