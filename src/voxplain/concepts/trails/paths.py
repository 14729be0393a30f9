"""The strongest paths through a graph of concepts, and their share of all paths."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import networkx as nx
import numpy as np

from voxplain.concepts.trails.graph import ConceptGraph

_START = "\0start"


@dataclass(frozen=True)
class Trail:
    """A path of links from the first analyzed layer to a class.

    Attributes:
        nodes: Names of the concepts, in order.
        output: Name of the class.
        strength: Product of the weights of its links.
        share: Its part of the sum of the products of all paths to the class.
    """

    nodes: tuple[str, ...]
    output: str
    strength: float
    share: float


def best_trails(graph: ConceptGraph, output: str, count: int = 5) -> tuple[Trail, ...]:
    """The strongest simple paths to a class, the strongest first; fewer where there are fewer.

    Paths are the shortest ones where a link is ``-log w`` long (Yen, 1971, as in networkx).

    Args:
        graph: The concepts.
        output: Name of the class.
        count: How many.
    """
    total = sum_of_paths(graph, output)
    return tuple(
        Trail(tuple(path), output, strength, strength / total)
        for path, strength in itertools.islice(_paths(graph, output), count)
    )


def _paths(graph: ConceptGraph, output: str) -> Iterator[tuple[list[str], float]]:
    """Paths from any node of the first layer, each with the product of its weights."""
    entered = graph.graph.copy()
    entered.add_edges_from((_START, start, {"length": 0.0}) for start in graph.starts)
    if not nx.has_path(entered, _START, output):
        return
    for path in nx.shortest_simple_paths(entered, _START, output, weight="length"):
        steps = itertools.pairwise(path[1:])
        weights = [graph.graph[first][second]["weight"] for first, second in steps]
        yield path[1:-1], math.prod(weights)


def sum_of_paths(graph: ConceptGraph, output: str) -> float:
    """The sum of the products of weights over all paths to a class.

    With the matrix W of weights, which is nilpotent, it is a sum of entries of
    ``(I - W)^-1 = I + W + W^2 + ...``.
    """
    names = list(graph.graph)
    weights = nx.to_numpy_array(graph.graph, nodelist=names, weight="weight")
    end = np.zeros(len(names))
    end[names.index(output)] = 1
    reached = np.linalg.solve(np.eye(len(names)) - weights, end)
    return float(sum(reached[names.index(start)] for start in graph.starts))
