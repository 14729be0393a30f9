"""What the report shows of links and trails: the graph, and a strip for every trail."""

from __future__ import annotations

from collections.abc import Sequence

from voxplain.analyses.analysis import AnalysisInputs
from voxplain.analyses.pictures import counted, with_interval
from voxplain.concepts.trails import (
    Trails,
    TrailsRecord,
    ValidatedTrail,
    trail_strip,
    trails_record,
)
from voxplain.concepts.trails.strip import in_words
from voxplain.engine.cohort import CohortCase
from voxplain.errors import ModelError
from voxplain.records.analysis_page import (
    AnalysisPage,
    Cell,
    GraphEdge,
    GraphNode,
    PageCard,
    PageFigure,
    PageGraph,
    PageTable,
    PageVerdict,
)
from voxplain.records.atomic import atomic_write
from voxplain.viz.drawing import png


def trails_page(inputs: AnalysisInputs, found: Trails, remarks: Sequence[str]) -> AnalysisPage:
    """The page of trails; draws a strip for every trail.

    Args:
        inputs: Of the analysis.
        found: The trails.
        remarks: Beside those of the links.
    """
    record = trails_record(found)
    notes = [*remarks, *found.links.remarks]
    shown = _shown_case(inputs, found)
    cards = [_card(inputs, found, each, number, shown, notes) for number, each in _numbered(found)]
    return AnalysisPage(
        title="How concepts lead to the answer",
        lead=[*_lead(found), _tested(record, found)],
        remarks=list(dict.fromkeys(notes)),
        verdicts=[_collapse(found)],
        tables=[_table(found), *_skips(record)],
        cards=cards,
        graph=_graph(record),
    )


def _numbered(found: Trails) -> list[tuple[int, ValidatedTrail]]:
    return list(enumerate(found.found, start=1))


def _lead(found: Trails) -> list[str]:
    links = list(found.links)
    first = (
        f"{len(found.links.surviving)} of {counted(len(links), 'link')} between concepts are "
        "stronger than those of random sets of units."
    )
    validated = len(found.validated)
    second = (
        f"{validated} of {counted(len(found.found), 'trail')} carry more of the answer than "
        "random trails do."
        if validated
        else "No trail carries more of the answer than random trails do."
    )
    return [first, second]


def _tested(record: TrailsRecord, found: Trails) -> str:
    """Which skip connections were tested."""
    pairs = counted(
        len(found.links.matrices) - len(record.skips), "pair of layers", "pairs of layers"
    )
    if not record.skips:
        return f"Links were measured between {pairs} that follow each other, and along no skip."
    names = ", ".join(f"{each.source} to {each.target}" for each in record.skips)
    tested = counted(len(record.skips), "skip connection was", "skip connections were")
    return (
        f"Beside {pairs} that follow each other, {tested} tested, with the layers between held: "
        f"{names}."
    )


def _skips(record: TrailsRecord) -> list[PageTable]:
    """One table of the skip connections; none where none was tested."""
    rows: list[list[Cell]] = [
        [
            f"{each.source} to {each.target}",
            each.route,
            each.share,
            f"{each.links}",
            f"{each.surviving}",
        ]
        for each in record.skips
    ]
    table = PageTable(
        title="Skip connections",
        columns=[
            "from and to",
            "route",
            "part of the effect",
            "links",
            "stronger than random sets",
        ],
        rows=rows,
        note="Part of the effect: what replacing the whole first layer changes at the second while "
        "the layers between keep their clean value, of what it changes on all routes.",
    )
    return [table] if rows else []


def _collapse(found: Trails) -> PageVerdict:
    topic, collapses = "network with random weights", found.links.collapses
    if collapses is None:
        return PageVerdict(topic=topic, status="not measured")
    survived = len(found.links.control.surviving) if found.links.control else 0
    text = f"{counted(survived, 'link survives', 'links survive')}"
    return PageVerdict(topic=topic, status="pass" if collapses else "fail", text=text)


def _table(found: Trails) -> PageTable:
    rows: list[list[Cell]] = []
    for number, each in _numbered(found):
        shares = each.validation
        rows.append(
            [
                f"{number}",
                each.trail.share,
                shares.kept_logit.value,
                shares.kept_logit.random,
                shares.kept_dice.value,
                shares.lost_logit.value,
                shares.lost_logit.random,
                shares.carried.p,
                shares.carried.q,
                "validated" if shares.validated else "not validated",
            ]
        )
    return PageTable(
        title="Trails",
        columns=[
            "trail",
            "share of all paths",
            "logit kept alone",
            "random trails",
            "Dice kept alone",
            "logit lost without it",
            "random trails",
            "p",
            "q",
            "verdict",
        ],
        rows=rows,
        note="Shares of the clean mean logit and Dice of the class; of random trails their mean. "
        "p is of the smaller of both shares of the logit: how many random trails reach it; "
        f"with {found.settings.random_trails} of them it is at least "
        f"{1 / (1 + found.settings.random_trails):.2g}. q is adjusted over the trails.",
    )


def _graph(record: TrailsRecord) -> PageGraph:
    columns = {layer: number for number, layer in enumerate(record.layers)}
    return PageGraph(
        nodes=[
            GraphNode(
                id=node.name,
                label=node.name,
                column=columns[node.layer],
                note=f"{node.layer}, score {with_interval(node.score)}",
            )
            for node in record.nodes
        ],
        edges=[
            GraphEdge(
                source=each.source,
                target=each.target,
                weight=max(0.0, min(1.0, each.weight)),
                sign=1 if each.sign > 0 else -1 if each.sign < 0 else 0,
                significant=each.survives,
                note=f"skip connection {each.route}" if each.route else "",
            )
            for each in record.links
        ],
        trails=[
            (
                f"trail {number}{', not validated' * (not each.validated)}",
                [*each.nodes, each.output],
            )
            for number, each in enumerate(record.trails, start=1)
        ],
        note="Links along skip connections lead below the boxes." if record.skips else "",
    )


def _shown_case(inputs: AnalysisInputs, found: Trails) -> CohortCase | None:
    """The case with the most of the class, of a cohort with labels; else the first one."""
    output = found.links.outputs[0]
    largest, chosen = -1, None
    for case in inputs.cohort:
        size = 0 if case.labels is None else int(output.reference(case.labels).sum())
        if size > largest:
            largest, chosen = size, case
    return chosen


def _card(
    inputs: AnalysisInputs,
    found: Trails,
    trail: ValidatedTrail,
    number: int,
    case: CohortCase | None,
    notes: list[str],
) -> PageCard:
    status = "pass" if trail.validation.validated else "fail"
    figures: list[PageFigure] = []
    if case is not None:
        try:
            figures.append(_strip(inputs, found, trail, number, case))
        except ModelError as error:
            notes.append(f"no strip of a trail is drawn: {error}")
    return PageCard(
        title=f"Trail {number}",
        subtitle=found.caption(trail.trail),
        verdicts=[
            PageVerdict(
                topic="carries more than random trails", status=status, text=in_words(trail)
            )
        ],
        figures=figures,
    )


def _strip(
    inputs: AnalysisInputs, found: Trails, trail: ValidatedTrail, number: int, case: CohortCase
) -> PageFigure:
    picture = trail_strip(inputs.model, case, found, trail).draw()
    file = f"trail{number}.png"
    atomic_write(inputs.folder / file, png(picture))
    caption = f"Case {case.id}: the image, the map of every concept, and the prediction."
    return PageFigure(file=file, caption=caption, alt=f"{caption} {found.caption(trail.trail)}")
