"""Links as a file of a run."""

from __future__ import annotations

import math

from voxplain.concepts.links.analysis import Links
from voxplain.concepts.links.matrix import Link, LinkMatrix
from voxplain.concepts.links.nodes import ConceptUnits, place_name
from voxplain.records.record import Record


class NodeRecord(Record):
    """A concept with its units.

    Attributes:
        name: Of the concept.
        layer: Path of the layer; empty for the image.
        channels: Its units; empty where they are directions.
        directions: How many directions there are instead.
        score: Held-out score; None if unknown.
        score_name: What the score is.
    """

    name: str
    layer: str
    channels: list[int]
    directions: int = 0
    score: float | None = None
    score_name: str = "IoU"


class LinkRecord(Record):
    """A link; None stands for what is undefined. See :class:`Link`."""

    source: str
    target: str
    necessity: float | None
    sufficiency: float | None
    weight: float | None
    sign: int
    interval: tuple[float, float] | None
    null: float | None
    p: float | None
    q: float | None
    survives: bool
    screened: bool


class EdgeRecord(Record):
    """Links along one edge.

    Attributes:
        source: Path of the layer; empty for the image.
        target: Path of the later layer; None for the output.
        through: Where replaced values enter, if not everywhere.
        hold: Layers that were held at their clean value.
        share: Part of the effect of the whole source layer that this route alone has; None where
            the layer has no effect.
        links: Source by source.
    """

    source: str
    target: str | None
    through: str | None
    hold: list[str]
    share: float | None = None
    links: list[LinkRecord]


class LinksRecord(Record):
    """All links of an analysis.

    Attributes:
        nodes: The concepts.
        outputs: Names of the classes, each measured by its logit and its Dice.
        edges: Links by edge.
        settings: How they were measured.
        cases: Number of cases.
        remarks: What a reader has to know.
        control_survivors: Surviving links of the network with random weights; None if not measured.
    """

    schema_version: int = 1
    nodes: list[NodeRecord]
    outputs: list[str]
    edges: list[EdgeRecord]
    settings: dict[str, str | int | float]
    cases: int
    remarks: list[str]
    control_survivors: int | None = None


def links_record(links: Links) -> LinksRecord:
    """What is kept of links."""
    control = links.control
    return LinksRecord(
        nodes=[node_record(node) for node in links.nodes],
        outputs=[output.name for output in links.outputs],
        edges=[_edge(matrix) for matrix in links.matrices],
        settings=links.settings.model_dump(),
        cases=links.cases,
        remarks=list(links.remarks),
        control_survivors=None if control is None else len(control.surviving),
    )


def node_record(node: ConceptUnits) -> NodeRecord:
    """What is kept of a node."""
    directions = node.units.directions
    return NodeRecord(
        name=node.name,
        layer=node.tap.path,
        channels=list(node.units.channels),
        directions=0 if directions is None else len(directions),
        score=node.score,
        score_name=node.score_name,
    )


def defined(value: float) -> float | None:
    """A number for a file; None for NaN and infinity, which JSON does not have."""
    return value if math.isfinite(value) else None


def _edge(matrix: LinkMatrix) -> EdgeRecord:
    edge = matrix.edge
    return EdgeRecord(
        source=edge.source.path,
        target=None if edge.target is None else edge.target.path,
        through=None if edge.through is None else place_name(edge.through),
        hold=[place_name(tap) for tap in edge.hold],
        share=defined(matrix.share),
        links=[_link(link) for row in matrix.links for link in row],
    )


def _link(link: Link) -> LinkRecord:
    bounds = link.interval
    is_known = bounds is not None and all(map(math.isfinite, bounds))
    return LinkRecord(
        source=link.source,
        target=link.target,
        necessity=defined(link.necessity),
        sufficiency=defined(link.sufficiency),
        weight=defined(link.weight),
        sign=link.sign,
        interval=bounds if is_known else None,
        null=defined(link.null),
        p=defined(link.p),
        q=defined(link.q),
        survives=link.survives,
        screened=link.screened,
    )
