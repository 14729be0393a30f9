"""Links of networks with known circuits."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from planted_circuits import (
    FIRST,
    HALVES,
    SECOND,
    SHAPES,
    Skipped,
    TwoHalves,
    convolution,
    is_untouched,
    noise_cohort,
    state_of,
    units_of,
    with_weights,
)
from torch import Tensor, nn

from voxplain.concepts.directions.directions import Directions
from voxplain.concepts.links.analysis import Links, LinkSettings, link
from voxplain.concepts.links.nodes import (
    ClassOutput,
    ConceptUnits,
    Edge,
    consecutive,
    direction_nodes,
    in_order,
    input_nodes,
)
from voxplain.concepts.links.size_driven import size_driven_links
from voxplain.engine.cohort import Cohort, CohortCase
from voxplain.engine.context import Context
from voxplain.engine.interventions import UnitSet
from voxplain.engine.observation import observe
from voxplain.engine.taps import INPUT, Tap
from voxplain.errors import ConfigError, ModelError
from voxplain.grid import Grid
from voxplain.image import Image
from voxplain.models.model import Model

FEW = LinkSettings(null_sets=20)
NONE = LinkSettings(null_sets=0, screen=0)


def measured(rank: int, settings: LinkSettings | None = None) -> Links:
    return link(TwoHalves(rank).eval(), noise_cohort(rank), HALVES, settings=settings)


@pytest.mark.parametrize("rank", [2, 3])
def test_the_planted_circuit_is_found(rank: int) -> None:
    network = TwoHalves(rank).eval()
    before = state_of(network)
    found = link(network, noise_cohort(rank), HALVES)
    (matrix,) = found.matrices
    assert (matrix.sources, matrix.targets) == (("A1", "A2"), ("B1", "B2"))
    assert np.abs(matrix.array("necessity") - np.eye(2)).max() < 0.05
    assert np.abs(matrix.array("sufficiency") - np.eye(2)).max() < 0.05
    assert {(each.source, each.target) for each in found.surviving} == {("A1", "B1"), ("A2", "B2")}
    assert all(each.sign == 1 and each.interval is not None for each in found.surviving)
    assert is_untouched(network, before)


def test_the_size_driven_link_does_not_see_the_circuit() -> None:
    network, case = TwoHalves(2).eval(), next(iter(noise_cohort()))
    activation = observe(Context.open(network, case.image), (SECOND,))[SECOND]
    found = size_driven_links(activation, HALVES[:2], HALVES[2:])
    assert np.allclose(found, [[0.75, 0.25], [0.75, 0.25]], atol=1e-6)
    assert np.abs(found - np.eye(2)).max() > 0.7


def test_links_equal_a_loop_over_pairs_and_whole_forwards() -> None:
    network, cohort = TwoHalves(2, leak=0.4).eval(), noise_cohort(cases=4)
    found = link(network, cohort, HALVES, settings=NONE)
    donors = donors_of(cohort)
    alone, others, total = np.zeros((2, 2)), np.zeros((2, 2)), np.zeros(2)
    network.requires_grad_(False)
    for case in cohort:
        own, other = (
            network.a(cohort[each].image.data[None]) for each in (case.id, donors[case.id])
        )
        for j, target in enumerate(HALVES[2:]):
            to = list(target.units.channels)
            clean = network.b(own)[:, to]
            total[j] += float((network.b(other)[:, to] - clean).square().sum())
            for i, source in enumerate(HALVES[:2]):
                for table, flipped in ((alone, False), (others, True)):
                    mixed = (other if flipped else own).clone()
                    chosen = list(source.units.channels)
                    mixed[:, chosen] = (own if flipped else other)[:, chosen]
                    table[i, j] += float((network.b(mixed)[:, to] - clean).square().sum())
    (matrix,) = found.matrices
    assert np.allclose(matrix.array("necessity"), alone / total, atol=1e-5)
    assert np.allclose(matrix.array("sufficiency"), 1 - others / total, atol=1e-5)


def donors_of(cohort: Cohort) -> dict[str, str]:
    from voxplain.concepts.links.donors import Donors

    model = Model(nn.Identity())
    donors = Donors(model, cohort, (), "resample", 0)
    return {case: donors.donor(case) for case in cohort.ids}


def test_a_falling_target_has_a_negative_sign() -> None:
    network = TwoHalves(2).eval()
    with torch.no_grad():
        network.b.weight[6:] *= -1
    found = {
        (each.source, each.target): each.sign for each in link(network, noise_cohort(), HALVES)
    }
    assert found["A1", "B1"] == 1
    assert found["A2", "B2"] == -1


@pytest.mark.parametrize(("seed", "cases"), [(0, 10), (1, 10), (2, 5)])
def test_no_link_survives_on_random_weights(seed: int, cases: int) -> None:
    """With 5 patients there are no intervals, and random sets of units alone decide."""
    torch.manual_seed(seed)
    control = TwoHalves(2)
    for layer in (control.a, control.b, control.head):
        nn.init.normal_(layer.weight)
    outputs = [ClassOutput("one", (0,), (1,)), ClassOutput("two", (1,), (2,))]
    cohort = noise_cohort(cases=cases)
    found = link(TwoHalves(2).eval(), cohort, HALVES, outputs, control=control.eval())
    assert found.surviving
    assert found.control is not None
    assert found.control.surviving == ()
    assert found.collapses


def test_a_screened_link_is_not_computed_and_does_not_survive() -> None:
    nodes = (*HALVES, ConceptUnits("A3", FIRST, UnitSet((0,))))
    network = TwoHalves(2, leak=0.0).eval()
    with torch.no_grad():
        network.b.weight[:, 0] = 0
    found = {
        each.source: each for each in link(network, noise_cohort(), nodes) if each.target == "B1"
    }
    assert found["A3"].screened
    assert math.isnan(found["A3"].necessity)
    assert (found["A3"].weight, found["A3"].survives) == (0, False)
    assert not found["A1"].screened


def test_a_dead_target_has_no_link() -> None:
    network = TwoHalves(2).eval()
    with torch.no_grad():
        network.b.weight[6:] = 0
    found = {(each.source, each.target): each for each in link(network, noise_cohort(), HALVES)}
    assert math.isnan(found["A2", "B2"].necessity)
    assert math.isnan(found["A2", "B2"].weight)
    assert not found["A2", "B2"].survives
    assert found["A1", "B1"].weight > 0.9


@pytest.mark.parametrize("rank", [2, 3])
def test_path_patching_tells_a_skip_connection_from_the_trunk(rank: int) -> None:
    first, trunk, last = Tap("a"), Tap("b"), Tap("c")
    nodes = [node for layer in "abc" for node in units_of(layer, 0, 1)]
    skips = (Edge(first, last, hold=(trunk,)), Edge(first, last, through=Tap("b", "input")))
    cohort = noise_cohort(rank, channels=4, cases=4)
    found = link(Skipped(rank).eval(), cohort, nodes, edges=skips, settings=NONE)
    skip, through = (matrix.array("weight") for matrix in found.matrices)
    assert np.allclose(skip, np.eye(2), atol=1e-5)
    assert np.all(through == 0)
    whole = link(Skipped(rank).eval(), cohort, nodes, edges=(Edge(first, last),), settings=NONE)
    assert np.allclose(whole.matrices[0].array("weight"), np.eye(2), atol=1e-5)


def test_the_effect_along_a_route_is_its_part_of_the_whole() -> None:
    first, trunk, last = Tap("a"), Tap("b"), Tap("c")
    nodes = [node for layer in "ac" for node in units_of(layer, 0, 1)]
    skips = (Edge(first, last, hold=(trunk,)), Edge(first, last, through=Tap("b", "input")))
    cohort = noise_cohort(channels=4, cases=4)
    found = link(Skipped(2, trunk=0.5).eval(), cohort, nodes, edges=skips, settings=NONE)
    skip, through = (matrix.array("necessity").diagonal() for matrix in found.matrices)
    assert np.allclose(skip, 1 / 1.5**2, atol=1e-4)
    assert np.allclose(through, 0.5**2 / 1.5**2, atol=1e-4)


def test_directions_are_linked_as_the_channels_that_they_turn() -> None:
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(2))).Q
    network = TwoHalves(2).eval()
    turned = TwoHalves(2).eval()
    with torch.no_grad():
        first, second = turned.a.weight[..., 0, 0], turned.b.weight[..., 0, 0]
        first.copy_(rotation @ first)
        second.copy_(second @ rotation.T)
    spanned = [
        ConceptUnits(node.name, FIRST, UnitSet(directions=rotation.T[list(node.units.channels)]))
        for node in HALVES[:2]
    ]
    cohort = noise_cohort(cases=4)
    plain = link(network, cohort, HALVES, settings=NONE).matrices[0]
    found = link(turned, cohort, [*spanned, *HALVES[2:]], settings=FEW).matrices[0]
    assert np.allclose(found.array("necessity"), plain.array("necessity"), atol=1e-4)
    assert np.allclose(found.array("sufficiency"), plain.array("sufficiency"), atol=1e-4)


def test_found_directions_are_nodes_and_are_linked_as_their_channels() -> None:
    network, cohort = TwoHalves(2).eval(), noise_cohort(cases=4)
    channels = (*units_of("a", 2, 5), *HALVES[2:])
    axes = Directions.linear("a", 2 * torch.eye(8)[[2, 5]], ("part 1", "part 2"))
    nodes = direction_nodes(axes, {"part 2": 0.5})
    assert [node.name for node in nodes] == ["part 1, a", "part 2, a"]
    assert [node.score for node in nodes] == [None, 0.5]
    plain = link(network, cohort, channels, settings=NONE).matrices[0]
    found = link(network, cohort, [*nodes, *HALVES[2:]], settings=FEW).matrices[0]
    assert np.allclose(found.array("weight"), plain.array("weight"), atol=1e-5)


def test_directions_at_the_end_are_measured_in_their_space() -> None:
    network, cohort = TwoHalves(2).eval(), noise_cohort(cases=4)
    axes = torch.eye(8)
    spanned = [
        ConceptUnits(node.name, SECOND, UnitSet(directions=3 * axes[list(node.units.channels)]))
        for node in HALVES[2:]
    ]
    plain = link(network, cohort, HALVES, settings=NONE).matrices[0]
    found = link(network, cohort, [*HALVES[:2], *spanned], settings=FEW).matrices[0]
    assert np.allclose(found.array("weight"), plain.array("weight"), atol=1e-4)
    assert np.isfinite(found.array("p")).all()


def test_classes_are_linked_by_their_logit_over_the_reference_and_by_dice() -> None:
    outputs = [ClassOutput("one", (0,), (1,)), ClassOutput("two", (1,), (2,))]
    found = link(TwoHalves(2).eval(), noise_cohort(), HALVES, outputs, settings=FEW)
    matrix = found.matrices[1]
    assert matrix.targets == ("one: logit", "one: dice", "two: logit", "two: dice")
    necessity = matrix.array("necessity")
    assert np.allclose(necessity[:, [0, 2]], np.eye(2), atol=1e-6)
    assert np.isfinite(necessity).all()


def test_a_case_without_the_class_counts_for_nothing() -> None:
    cohort = noise_cohort(cases=3)
    cases = [
        replace(case, labels=torch.zeros_like(case.labels)) if n == 0 else case
        for n, case in enumerate(cohort)
    ]
    outputs = [ClassOutput("one", (0,), (1,))]
    found = link(TwoHalves(2).eval(), Cohort.of(cases), HALVES, outputs, settings=FEW)
    logits = {each.source: each for each in found if each.target == "one: logit"}
    assert logits["B1"].necessity == pytest.approx(1)
    assert not logits["B1"].screened


def test_modalities_are_nodes_of_the_image() -> None:
    nodes = (*input_nodes([f"channel {k}" for k in range(8)]), *HALVES[:2])
    found = link(TwoHalves(2).eval(), noise_cohort(cases=4), nodes, settings=NONE)
    assert found.matrices[0].edge == Edge(INPUT, FIRST)
    expected = np.zeros((8, 2))
    expected[:4, 0] = expected[4:, 1] = 0.25
    assert np.abs(found.matrices[0].array("weight") - expected).max() < 0.05


@pytest.mark.parametrize("replaced_by", ["channel_mean", "zero"])
def test_other_replacements_find_the_circuit_too(replaced_by: str) -> None:
    settings = LinkSettings(null_sets=0, replaced_by=replaced_by)
    weight = measured(2, settings).matrices[0].array("weight")
    assert np.abs(weight - np.eye(2)).max() < 0.05


def test_one_slice_of_a_volume_gives_the_links_of_the_image() -> None:
    flat = noise_cohort(cases=4)
    thick = Cohort.of(
        [
            CohortCase(
                each.id,
                each.patient,
                Image(each.image.data[..., None], Grid.default((*SHAPES[2], 1))),
                each.labels[..., None],
            )
            for each in flat
        ]
    )
    outputs = [ClassOutput("one", (0,), (1,))]
    found = [
        link(TwoHalves(rank).eval(), cohort, HALVES, outputs, settings=FEW)
        for rank, cohort in ((2, flat), (3, thick))
    ]
    for image, volume in zip(*(each.matrices for each in found), strict=True):
        for what in ("necessity", "sufficiency", "weight", "p"):
            assert np.allclose(image.array(what), volume.array(what), atol=1e-5, equal_nan=True)


def test_the_seed_decides_and_images_of_other_sizes_are_donors_too() -> None:
    sizes = [noise_cohort(cases=2, seed=1), noise_cohort(cases=1, shape=(7, 12), seed=2)]
    cases = [case for cohort in sizes for case in cohort]
    cohort = Cohort.of([CohortCase(f"{n}", f"{n}", c.image, c.labels) for n, c in enumerate(cases)])
    network = TwoHalves(2).eval()
    first, again = (link(network, cohort, HALVES, settings=FEW) for _ in range(2))
    other = link(network, cohort, HALVES, settings=LinkSettings(null_sets=20, seed=5))
    weights = [found.matrices[0].array("weight") for found in (first, again, other)]
    assert np.array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])
    assert "3 patients: intervals are given from 8 on" in first.remarks[0]
    assert all(each.interval is None for each in first)


class Classifier(nn.Module):
    """Mean activations of one layer as scores."""

    def __init__(self) -> None:
        super().__init__()
        self.a = with_weights(convolution(2, 8, 8), torch.eye(8), 2)

    def forward(self, image: Tensor) -> Tensor:
        means = self.a(image).flatten(2).mean(dim=2)
        return torch.stack([means[:, :4].sum(dim=1), means[:, 4:].sum(dim=1)], dim=1)


def test_a_classifier_has_links_to_scores_and_no_dice() -> None:
    outputs = [ClassOutput("one", (0,)), ClassOutput("two", (1,))]
    found = link(Classifier().eval(), noise_cohort(), HALVES[:2], outputs, settings=NONE)
    necessity = found.matrices[0].array("necessity")
    assert np.allclose(necessity[:, [0, 2]], np.eye(2), atol=1e-6)
    assert np.isnan(necessity[:, [1, 3]]).all()


def test_layers_are_ordered_as_the_network_computes_them() -> None:
    network, case = TwoHalves(2).eval(), next(iter(noise_cohort()))
    context = Context.open(network, case.image)
    assert in_order([SECOND, INPUT, FIRST], context) == (INPUT, FIRST, SECOND)
    outputs = [ClassOutput("one", (0,))]
    edges = consecutive(HALVES[::-1], outputs, context)
    assert edges == (Edge(FIRST, SECOND), Edge(SECOND, None))


def test_what_cannot_be_linked_is_refused_in_a_sentence() -> None:
    network, cohort = TwoHalves(2).eval(), noise_cohort(cases=2)
    one = cohort.only(["case0"])
    with pytest.raises(ConfigError, match="only one"):
        link(network, one, HALVES)
    with pytest.raises(ConfigError, match="two nodes are called 'A1'"):
        link(network, cohort, [*HALVES, HALVES[0]])
    wrong = ConceptUnits("C", FIRST, UnitSet((8,)))
    with pytest.raises(ConfigError, match="'a' has channels 0 to 7, not 8"):
        link(network, cohort, [*HALVES, wrong])
    with pytest.raises(ConfigError, match="nothing to link"):
        link(network, cohort, HALVES[:2])
    with pytest.raises(ConfigError, match="'C' of layer 'a' has no units"):
        link(network, cohort, [*HALVES, ConceptUnits("C", FIRST, UnitSet())])
    with pytest.raises(ModelError, match="no layer 'frist'"):
        link(network, cohort, [*HALVES, ConceptUnits("C", Tap("frist"), UnitSet((0,)))])
    windowed = Model(network, window={"size": [6, 6], "overlap": 0.5})
    with pytest.raises(ModelError, match="without windows"):
        link(windowed, cohort, HALVES)
