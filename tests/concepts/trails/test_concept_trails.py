"""Trails: exact ranking and shares, and what they carry in networks with known circuits."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import torch
from planted_circuits import (
    Chain,
    blob_cohort,
    convolution,
    is_untouched,
    state_of,
    units_of,
    with_weights,
)
from torch import nn

from voxplain.concepts.links.analysis import Links, LinkSettings, link
from voxplain.concepts.links.nodes import ClassOutput, ConceptUnits
from voxplain.concepts.links.record import links_record
from voxplain.concepts.trails.find import Trails, TrailSettings, trails
from voxplain.concepts.trails.graph import ConceptGraph, positions
from voxplain.concepts.trails.paths import best_trails, sum_of_paths
from voxplain.concepts.trails.record import TrailsRecord, graphml, write_trails
from voxplain.concepts.trails.strip import trail_strip
from voxplain.engine.interventions import UnitSet
from voxplain.engine.taps import Tap
from voxplain.errors import ConfigError

BOX = (ClassOutput("box", (1,)),)
QUICK = LinkSettings(null_sets=0)


def known_graph(seed: int = 0) -> ConceptGraph:
    """Three layers of three nodes and one class, with all links between neighbors and a skip."""
    source = np.random.default_rng(seed)
    layers = [[f"{layer}{k}" for k in range(3)] for layer in "abc"] + [["class"]]
    graph = nx.DiGraph()
    for column, layer in enumerate(layers):
        graph.add_nodes_from(layer, column=column)
    for first, second in [*itertools.pairwise(layers), (layers[0], layers[2])]:
        for start, end in itertools.product(first, second):
            weight = float(source.uniform(0.05, 1))
            graph.add_edge(start, end, weight=weight, length=-math.log(weight))
    return ConceptGraph(graph, ("a", "b", "c", "output"), tuple(layers[0]), ("class",))


@pytest.mark.parametrize("seed", range(3))
def test_ranking_and_shares_are_exact(seed: int) -> None:
    graph = known_graph(seed)
    every = [
        (math.prod(graph.graph[a][b]["weight"] for a, b in itertools.pairwise(path)), path)
        for start in graph.starts
        for path in nx.all_simple_paths(graph.graph, start, "class")
    ]
    every.sort(reverse=True)
    total = sum(strength for strength, _ in every)
    assert math.isclose(sum_of_paths(graph, "class"), total, rel_tol=1e-9)
    found = best_trails(graph, "class", 7)
    assert [list(trail.nodes) for trail in found] == [path[:-1] for _, path in every[:7]]
    for trail, (strength, _) in zip(found, every, strict=False):
        assert math.isclose(trail.strength, strength, rel_tol=1e-9)
        assert math.isclose(trail.share, strength / total, rel_tol=1e-9)
    assert math.isclose(sum(each.share for each in best_trails(graph, "class", 99)), 1)


def test_a_class_without_links_has_no_trail() -> None:
    graph = known_graph()
    graph.graph.remove_edges_from(list(graph.graph.in_edges("class")))
    assert best_trails(graph, "class") == ()
    assert sum_of_paths(graph, "class") == 0


def of_chain(rank: int = 2, nodes: int = 3, settings: LinkSettings = QUICK) -> tuple[Chain, Links]:
    network = Chain(rank).eval()
    concepts = [node for layer in "abc" for node in units_of(layer, *range(nodes))]
    return network, link(network, blob_cohort(rank), concepts, BOX, settings=settings)


def trails_of(network: nn.Module, links: Links, rank: int = 2, count: int = 40) -> Trails:
    settings = TrailSettings(surviving=False, random_trails=count)
    return trails(network, blob_cohort(rank), links, settings)


@pytest.mark.parametrize("rank", [2, 3])
def test_a_true_trail_keeps_the_answer_and_random_ones_do_not(rank: int) -> None:
    network, links = of_chain(rank, settings=LinkSettings(null_sets=0, screen=0))
    before = state_of(network)
    found = trails_of(network, links, rank)
    (best,) = found.found
    assert best.trail.nodes == ("a0", "b0", "c0")
    assert math.isclose(best.trail.share, 1, abs_tol=1e-4)
    assert best.validation.kept_logit.value > 0.95
    assert best.validation.kept_dice.value > 0.95
    assert best.validation.lost_logit.value > 0.95
    assert best.validation.kept_logit.random < 0.2
    assert best.validation.kept_logit.random_high < 0.2
    assert best.validation.validated
    assert best.validation.clean == (0.5, 1.0)
    assert found.caption(best.trail) == "(Image) -> (a0) -> (b0) -> (c0) -> (box)"
    assert is_untouched(network, before)


class TwoReaders(nn.Module):
    """Class 1 is read from one unit; another unit is followed through all layers and never read."""

    def __init__(self) -> None:
        super().__init__()
        self.a = with_weights(convolution(2, 8, 8), torch.eye(8), 2)
        head = torch.zeros(2, 8)
        head[1, 0], head[1, 1] = 1, 0.02
        self.head = with_weights(convolution(2, 8, 2), head, 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.a(image)) - 0.4


def test_a_trail_that_carries_little_is_not_validated() -> None:
    network = TwoReaders().eval()
    nodes = units_of("a", 0, 1)
    links = link(network, blob_cohort(), nodes, BOX, settings=LinkSettings(null_sets=0, screen=0))
    found = {each.trail.nodes: each for each in trails_of(network, links, count=200).found}
    assert found["a0",].validation.kept_logit.value > 0.9
    if ("a1",) in found:
        assert found["a1",].validation.kept_logit.value < 0.1
        assert not found["a1",].validation.validated


def test_no_trail_survives_on_random_weights() -> None:
    torch.manual_seed(4)
    control = Chain(2)
    for layer in (control.a, control.b, control.c, control.head):
        nn.init.normal_(layer.weight)
    concepts = [node for layer in "abc" for node in units_of(layer, 0, 1, 2)]
    links = link(control.eval(), blob_cohort(), concepts, BOX, settings=LinkSettings(null_sets=50))
    assert links.surviving == ()
    assert trails(control, blob_cohort(), links).found == ()
    forced = trails(control, blob_cohort(), links, TrailSettings(surviving=False, random_trails=99))
    assert forced.found
    assert forced.surviving == ()


def test_what_is_written_can_be_read_and_drawn(tmp_path: Path) -> None:
    network, links = of_chain(settings=LinkSettings(null_sets=10, screen=0))
    found = trails_of(network, links)
    record = write_trails(tmp_path, found)
    again = TrailsRecord.model_validate_json((tmp_path / "trails.json").read_text())
    assert again == record
    assert again.layers == ["a", "b", "c", "output"]
    assert [node.name for node in again.nodes if node.on_trail] == ["a0", "b0", "c0", "box"]
    assert {(each.source, each.target) for each in again.links if each.on_trail} == {
        ("a0", "b0"),
        ("b0", "c0"),
        ("c0", "box"),
    }
    read = nx.parse_graphml(graphml(found))
    assert {*read.edges} == {*found.graph.graph.edges}
    for source, target, facts in found.graph.graph.edges(data=True):
        assert math.isclose(read[source][target]["weight"], facts["weight"])
    assert (tmp_path / "trails.graphml").exists()
    kept = links_record(links)
    assert type(kept).model_validate_json(kept.model_dump_json()) == kept


def test_nodes_are_drawn_layer_by_layer_without_overlap() -> None:
    places = positions(known_graph())
    assert {name: x for name, (x, _) in places.items()}["class"] == 3
    for layer in "abc":
        heights = sorted(y for name, (_, y) in places.items() if name[:-1] == layer)
        assert heights == pytest.approx([1 / 6, 3 / 6, 5 / 6])


@pytest.mark.parametrize("rank", [2, 3])
def test_the_strip_shows_each_concept_where_it_is(rank: int) -> None:
    network, links = of_chain(rank, settings=LinkSettings(null_sets=0, screen=0))
    case = next(iter(blob_cohort(rank)))
    found = trails_of(network, links, rank, count=5)
    strip = trail_strip(network, case, found, found.found[0])
    assert [panel.layer for panel in strip.panels] == ["a", "b", "c"]
    for panel in strip.panels:
        assert torch.equal(panel.map, case.image.data[0])
    assert strip.prediction is not None
    assert torch.equal(strip.prediction, case.image.data[0] > 0)
    picture = np.asarray(strip.draw())
    assert picture.shape[2] == 3
    colored = (picture.max(axis=2).astype(int) - picture.min(axis=2)) > 60
    columns = np.array_split(colored[: int(0.5 * len(colored))], 5, axis=1)
    assert [bool(part.any()) for part in columns] == [False, True, True, True, True]


def test_trails_need_classes() -> None:
    network = Chain(2).eval()
    nodes = [ConceptUnits(layer, Tap(layer), UnitSet((0,))) for layer in "ab"]
    links = link(network, blob_cohort(), nodes, settings=QUICK)
    with pytest.raises(ConfigError, match="without outputs"):
        trails(network, blob_cohort(), links)
