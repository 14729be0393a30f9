"""Concepts and their links as a directed graph from the image to the answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import networkx as nx

from voxplain.concepts.links.analysis import Links
from voxplain.concepts.links.class_scores import MEASURES
from voxplain.concepts.links.matrix import Link
from voxplain.concepts.links.nodes import OUTPUT
from voxplain.errors import ConfigError

LOGIT, DICE = MEASURES


@dataclass(frozen=True, eq=False)
class ConceptGraph:
    """A directed acyclic graph of concepts.

    Attributes:
        graph: Nodes by name with ``layer``, ``column``, ``score`` and ``size``; edges with
            ``weight`` (at most 1), ``sign``, ``survives``, ``route`` (what a skip connection goes
            around; empty where nothing is held) and ``length``, which is -log weight.
        layers: Names of the layers in order; the classes come last.
        starts: Names of the nodes of the first layer.
        outputs: Names of the classes.
    """

    graph: nx.DiGraph[str]
    layers: tuple[str, ...]
    starts: tuple[str, ...]
    outputs: tuple[str, ...]


def concept_graph(links: Links, measure: str = LOGIT, *, surviving: bool = True) -> ConceptGraph:
    """The graph of links.

    Args:
        links: Measured links.
        measure: Whether classes are linked by their ``logit`` or their ``dice``.
        surviving: Whether links that random sets of units reach are left out.

    Raises:
        ConfigError: If there are no links to classes.
    """
    if not links.outputs:
        raise ConfigError("trails lead to classes, and these links were measured without outputs")
    layers = _layers(links)
    graph: nx.DiGraph[str] = nx.DiGraph()
    for node in links.nodes:
        layer = _layer_name(node.tap.path)
        facts = {"layer": layer, "column": layers.index(layer), "size": node.size}
        graph.add_node(node.name, **facts, score=node.score, label=node.label)
    for output in links.outputs:
        facts = {"layer": OUTPUT, "column": len(layers) - 1, "size": len(output.labels)}
        graph.add_node(output.name, **facts, score=None, label=output.name)
    for matrix in links.matrices:
        for link in (link for row in matrix.links for link in row):
            target = _target(link, links, measure)
            if target is not None and link.weight > 0 and (link.survives or not surviving):
                _add(graph, link, target, matrix.edge.route)
    first = layers[0]
    starts = tuple(node.name for node in links.nodes if _layer_name(node.tap.path) == first)
    return ConceptGraph(graph, layers, starts, tuple(each.name for each in links.outputs))


def _add(graph: nx.DiGraph[str], link: Link, target: str, route: str) -> None:
    """Adds an edge; of two routes between the same nodes the stronger one stays."""
    weight = min(link.weight, 1.0)
    known = graph.get_edge_data(link.source, target)
    if known is None or known["weight"] < weight:
        facts = {"sign": link.sign, "survives": link.survives, "route": route}
        graph.add_edge(link.source, target, weight=weight, length=-math.log(weight), **facts)


def _target(link: Link, links: Links, measure: str) -> str | None:
    """The node that a link leads to; None for the other measure of a class."""
    for output in links.outputs:
        if link.target in {f"{output.name}: {each}" for each in MEASURES}:
            return output.name if link.target == f"{output.name}: {measure}" else None
    return link.target


def _layers(links: Links) -> tuple[str, ...]:
    """Names of the layers in the order of the network, and of the classes."""
    order: nx.DiGraph[str] = nx.DiGraph()
    for matrix in links.matrices:
        target = OUTPUT if matrix.edge.target is None else _layer_name(matrix.edge.target.path)
        order.add_edge(_layer_name(matrix.edge.source.path), target)
    found = [layer for layer in nx.topological_sort(order) if layer != OUTPUT]
    return (*found, OUTPUT)


def _layer_name(path: str) -> str:
    return path or "image"


def positions(graph: ConceptGraph) -> dict[str, tuple[float, float]]:
    """Where to draw every node: its layer from 0 on, and a height in 0 to 1.

    Nodes are ordered by the mean height of the nodes that lead to them, weighted by their links,
    so that few links cross.
    """
    heights: dict[str, float] = {}
    for column in range(len(graph.layers)):
        members = [name for name, at in graph.graph.nodes(data="column") if at == column]
        members.sort(key=lambda name: _pull(graph.graph, name, heights))
        for row, name in enumerate(members):
            heights[name] = (row + 0.5) / len(members)
    columns: Sequence[tuple[str, int]] = list(graph.graph.nodes(data="column"))
    return {name: (float(column), heights[name]) for name, column in columns}


def _pull(graph: nx.DiGraph[str], name: str, heights: dict[str, float]) -> float:
    before = [(heights[each], graph[each][name]["weight"]) for each in graph.predecessors(name)]
    total = sum(weight for _, weight in before)
    return sum(height * weight for height, weight in before) / total if total else 0.5
