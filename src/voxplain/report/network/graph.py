"""A graph of concepts in columns, from the input to the output, as positions on a drawing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from voxplain.records.analysis_page import GraphEdge, GraphNode, PageGraph

_COLUMN, _ROW, _MARGIN = 190.0, 46.0, 24.0
_BOX_WIDTH, _BOX_HEIGHT = 140.0, 34.0
_GAP = _COLUMN - _BOX_WIDTH
_LANE = 18.0
"""Between the lines of edges that pass columns, below all boxes."""
_LETTERS = 20
_SWEEPS = 8
"""How often the order of every column is set by its neighbors."""


@dataclass(frozen=True)
class PlacedNode:
    """A node with the middle of its box."""

    node: GraphNode
    x: float
    y: float

    @property
    def text(self) -> str:
        """Its label, shortened to the width of the box."""
        label = self.node.label
        return label if len(label) <= _LETTERS else f"{label[: _LETTERS - 1]}…"


@dataclass(frozen=True)
class PlacedEdge:
    """An edge as a path from the right side of a box to the left side of another.

    Where it passes columns, such as a skip connection, it leads below their boxes.
    """

    edge: GraphEdge
    path: str
    width: float


@dataclass(frozen=True)
class Drawing:
    """A graph that is ready to be drawn.

    Attributes:
        width: In points.
        height: In points.
        nodes: Boxes.
        edges: Lines, the weakest first.
        trails: Paths of nodes with their words.
        note: What the drawing shows.
    """

    width: float
    height: float
    nodes: list[PlacedNode]
    edges: list[PlacedEdge]
    trails: list[tuple[str, list[str]]]
    note: str
    box: tuple[float, float] = (_BOX_WIDTH, _BOX_HEIGHT)


def draw(graph: PageGraph) -> Drawing:
    """Positions of the nodes and lines of a graph.

    Nodes of a column are ordered so that strong links cross little: each is moved to the weighted
    mean of its neighbors, column by column, forth and back.
    """
    columns = _ordered(graph)
    tallest = max(len(column) for column in columns)
    height = 2 * _MARGIN + tallest * _ROW
    places: dict[str, tuple[float, float]] = {}
    for number, column in enumerate(columns):
        top = (height - len(column) * _ROW) / 2
        x = _MARGIN + _BOX_WIDTH / 2 + number * _COLUMN
        for row, node in enumerate(column):
            places[node.id] = (x, top + (row + 0.5) * _ROW)
    nodes = [PlacedNode(node, *places[node.id]) for column in columns for node in column]
    drawn = [edge for edge in graph.edges if edge.source in places and edge.target in places]
    at = {node.id: number for number, column in enumerate(columns) for node in column}
    passing = sorted({(at[edge.source], at[edge.target]) for edge in drawn}, key=_width_and_start)
    lanes = {
        ends: height + number * _LANE
        for number, ends in enumerate(ends for ends in passing if ends[1] - ends[0] > 1)
    }
    height += len(lanes) * _LANE
    edges = [
        _edge(edge, places, lanes.get((at[edge.source], at[edge.target])))
        for edge in sorted(drawn, key=lambda each: each.weight)
    ]
    width = 2 * _MARGIN + _BOX_WIDTH + (len(columns) - 1) * _COLUMN
    return Drawing(width, height, nodes, edges, graph.trails, graph.note)


def _ordered(graph: PageGraph) -> list[list[GraphNode]]:
    """The nodes column by column, in an order in which strong links cross little."""
    numbers = sorted({node.column for node in graph.nodes})
    columns = [[node for node in graph.nodes if node.column == number] for number in numbers]
    for sweep in range(_SWEEPS):
        order = columns if sweep % 2 == 0 else columns[::-1]
        for fixed, moved in pairwise(order):
            rank = {node.id: row / max(1, len(fixed) - 1) for row, node in enumerate(fixed)}
            own = {node.id: row / max(1, len(moved) - 1) for row, node in enumerate(moved)}
            moved.sort(key=partial(_wanted, graph=graph, rank=rank, own=own))
    return columns


def _wanted(
    node: GraphNode, graph: PageGraph, rank: dict[str, float], own: dict[str, float]
) -> float:
    """The weighted mean of the places of the neighbors of a node; its own place without any."""
    total = weights = 0.0
    for edge in graph.edges:
        other = edge.source if edge.target == node.id else edge.target
        if node.id in (edge.source, edge.target) and other in rank:
            total += edge.weight * rank[other]
            weights += edge.weight
    return total / weights if weights > 0 else own[node.id]


def _width_and_start(ends: tuple[int, int]) -> tuple[int, int]:
    """Edges that pass few columns come first, so that their lanes lie next to the boxes."""
    return ends[1] - ends[0], ends[0]


def _edge(
    edge: GraphEdge, places: dict[str, tuple[float, float]], lane: float | None
) -> PlacedEdge:
    (x0, y0), (x1, y1) = places[edge.source], places[edge.target]
    left, right = x0 + _BOX_WIDTH / 2, x1 - _BOX_WIDTH / 2
    path = f"M{left:.1f} {y0:.1f} "
    if lane is None:
        bend = (right - left) / 2
        path += f"C{left + bend:.1f} {y0:.1f} {right - bend:.1f} {y1:.1f} {right:.1f} {y1:.1f}"
    else:
        start, end, bend = left + _GAP, right - _GAP, 0.7 * _GAP
        path += f"C{left + bend:.1f} {y0:.1f} {start - bend:.1f} {lane:.1f} {start:.1f} {lane:.1f} "
        path += f"L{end:.1f} {lane:.1f} "
        path += f"C{end + bend:.1f} {lane:.1f} {right - bend:.1f} {y1:.1f} {right:.1f} {y1:.1f}"
    return PlacedEdge(edge, path, 0.8 + 6 * min(1.0, max(0.0, edge.weight)))
