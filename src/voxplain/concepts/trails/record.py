"""Trails as files of a run: JSON for report pages, GraphML for other programs."""

from __future__ import annotations

import io
from pathlib import Path

import networkx as nx
from pydantic import Field

from voxplain.concepts.links.matrix import LinkMatrix
from voxplain.concepts.links.nodes import OUTPUT
from voxplain.concepts.links.record import defined
from voxplain.concepts.trails.find import Trails, ValidatedTrail
from voxplain.concepts.trails.graph import ConceptGraph, positions
from voxplain.concepts.trails.validation import Share
from voxplain.records.atomic import atomic_write
from voxplain.records.record import Record


class DrawnNode(Record):
    """A concept in the drawing of the graph.

    Attributes:
        name: Of the concept.
        label: The name with its held-out score.
        layer: Name of the layer; ``image`` and ``output`` are its ends.
        x: Number of the layer.
        y: Height in 0 to 1.
        score: Held-out score; None if unknown.
        on_trail: Whether a validated trail leads through it.
    """

    name: str
    label: str
    layer: str
    x: float
    y: float
    score: float | None = None
    on_trail: bool = False


class DrawnLink(Record):
    """A link in the drawing of the graph.

    Attributes:
        source: Name of the node.
        target: Likewise.
        weight: w, at most 1.
        sign: 1 where the target rises as the source does, -1 where it falls.
        survives: Whether random sets of units do not reach it.
        on_trail: Whether a validated trail leads along it; others are drawn gray.
        route: What a skip connection goes around; empty between layers that follow each other.
    """

    source: str
    target: str
    weight: float
    sign: int
    survives: bool
    on_trail: bool = False
    route: str = ""


class SkipRecord(Record):
    """A skip connection along which links were measured.

    Attributes:
        source: Path of the layer.
        target: Path of the later layer; ``output`` for the output.
        route: What was held at its clean value, in words.
        share: Part of the effect of the whole source layer that passes along it, mean over the
            concepts at the end; None where the layer has no effect.
        links: How many were measured.
        surviving: How many of them random sets of units do not reach.
    """

    source: str
    target: str
    route: str
    share: float | None
    links: int
    surviving: int


class ShareRecord(Record):
    """A share of the clean value of a class; see :class:`Share`."""

    value: float | None
    random: float | None
    random_high: float | None
    p: float | None
    q: float | None


class TrailRecord(Record):
    """A trail and what it carries.

    Attributes:
        nodes: Names of the concepts, in order.
        output: Name of the class.
        caption: All of them with held-out scores.
        strength: Product of the weights of its links.
        share: Its part of the sum over all paths to the class.
        kept_logit: Share of the mean logit that is left with it alone.
        kept_dice: The same of Dice.
        lost_logit: Share that is lost without it.
        lost_dice: The same of Dice.
        carried: The smaller of the kept and the lost share of the logit.
        clean: Mean logit and Dice on unchanged images.
        replaced: Both with all units of analyzed layers replaced.
        validated: Whether random trails do not carry as much; others are drawn gray.
        survives: Whether, in addition, random sets of units reach none of its links.
    """

    nodes: list[str]
    output: str
    caption: str
    strength: float
    share: float
    kept_logit: ShareRecord
    kept_dice: ShareRecord
    lost_logit: ShareRecord
    lost_dice: ShareRecord
    carried: ShareRecord
    clean: tuple[float | None, float | None]
    replaced: tuple[float | None, float | None]
    validated: bool
    survives: bool


class TrailsRecord(Record):
    """The trails of an analysis, and the graph that they lead through.

    Attributes:
        layers: Names of the layers in order, ``output`` last.
        nodes: Concepts and classes, placed for a drawing.
        links: Links between them.
        skips: The skip connections that were tested, beside the layers that follow each other.
        trails: Class by class, the strongest first.
        settings: How they were found.
    """

    schema_version: int = 1
    layers: list[str]
    nodes: list[DrawnNode]
    links: list[DrawnLink]
    skips: list[SkipRecord] = Field(default_factory=list)
    trails: list[TrailRecord]
    settings: dict[str, str | int | float]


def trails_record(trails: Trails) -> TrailsRecord:
    """What is kept of trails."""
    steps = _validated_steps(trails)
    return TrailsRecord(
        layers=list(trails.graph.layers),
        nodes=_nodes(trails.graph, {name for step in steps for name in step}),
        links=[
            DrawnLink(
                source=source,
                target=target,
                weight=facts["weight"],
                sign=facts["sign"],
                survives=facts["survives"],
                on_trail=(source, target) in steps,
                route=facts["route"],
            )
            for source, target, facts in trails.graph.graph.edges(data=True)
        ],
        skips=[_skip(each) for each in trails.links.matrices if each.edge.is_route],
        trails=[_trail(trails, each) for each in trails.found],
        settings=trails.settings.model_dump(),
    )


def _skip(matrix: LinkMatrix) -> SkipRecord:
    edge, links = matrix.edge, [link for row in matrix.links for link in row]
    return SkipRecord(
        source=edge.source.path,
        target=OUTPUT if edge.target is None else edge.target.path,
        route=edge.route,
        share=defined(matrix.share),
        links=len(links),
        surviving=sum(link.survives for link in links),
    )


def _validated_steps(trails: Trails) -> set[tuple[str, str]]:
    return {step for each in trails.validated for step in nx.utils.pairwise(_names(each))}


def _names(each: ValidatedTrail) -> tuple[str, ...]:
    return (*each.trail.nodes, each.trail.output)


def _nodes(graph: ConceptGraph, on_trail: set[str]) -> list[DrawnNode]:
    places = positions(graph)
    return [
        DrawnNode(
            name=name,
            label=facts["label"],
            layer=facts["layer"],
            x=places[name][0],
            y=places[name][1],
            score=facts["score"],
            on_trail=name in on_trail,
        )
        for name, facts in graph.graph.nodes(data=True)
    ]


def _trail(trails: Trails, each: ValidatedTrail) -> TrailRecord:
    trail, found = each.trail, each.validation
    return TrailRecord(
        nodes=list(trail.nodes),
        output=trail.output,
        caption=trails.caption(trail),
        strength=trail.strength,
        share=trail.share,
        kept_logit=_share(found.kept_logit),
        kept_dice=_share(found.kept_dice),
        lost_logit=_share(found.lost_logit),
        lost_dice=_share(found.lost_dice),
        carried=_share(found.carried),
        clean=(defined(found.clean[0]), defined(found.clean[1])),
        replaced=(defined(found.replaced[0]), defined(found.replaced[1])),
        validated=found.validated,
        survives=each.survives,
    )


def _share(share: Share) -> ShareRecord:
    return ShareRecord(
        value=defined(share.value),
        random=defined(share.random),
        random_high=defined(share.random_high),
        p=defined(share.p),
        q=defined(share.q),
    )


def graphml(trails: Trails) -> str:
    """The graph in GraphML, with the facts of nodes and links that are known."""
    steps = _validated_steps(trails)
    plain: nx.DiGraph[str] = nx.DiGraph()
    for name, facts in trails.graph.graph.nodes(data=True):
        plain.add_node(name, **{key: value for key, value in facts.items() if value is not None})
    for source, target, facts in trails.graph.graph.edges(data=True):
        plain.add_edge(source, target, **facts, on_trail=(source, target) in steps)
    buffer = io.BytesIO()
    nx.write_graphml(plain, buffer)
    return buffer.getvalue().decode()


def write_trails(folder: Path, trails: Trails) -> TrailsRecord:
    """Writes ``trails.json`` and ``trails.graphml`` into a folder."""
    record = trails_record(trails)
    atomic_write(folder / "trails.json", record.model_dump_json(indent=1))
    atomic_write(folder / "trails.graphml", graphml(trails))
    return record
