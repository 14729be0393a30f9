"""Skip connections are found by intervention, at any depth, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from planted_circuits import (
    Skipped,
    convolution,
    is_untouched,
    noise_cohort,
    state_of,
    units_of,
)
from torch import Tensor, nn
from torch.nn import functional

from voxplain.concepts.links.analysis import LinkSettings, link
from voxplain.concepts.links.nodes import ClassOutput, Edge
from voxplain.concepts.links.skips import MOST_LAYERS, find_skips, named_skips
from voxplain.engine.context import Context
from voxplain.engine.taps import Tap
from voxplain.errors import ConfigError, ModelError
from voxplain.models.model import Model
from voxplain.zoo import unet

NONE = LinkSettings(null_sets=0, screen=0)
STAGES = ("enc1", "enc2", "bottleneck", "dec2", "dec1")


def taps(*paths: str) -> list[Tap]:
    return [Tap(path) for path in paths]


def pairs(edges: tuple[Edge, ...]) -> list[tuple[str, str]]:
    return [(each.source.path, each.target.path if each.target else "output") for each in edges]


@pytest.mark.parametrize("rank", [2, 3])
def test_both_skips_of_a_unet_are_found_and_no_other_pair(rank: int) -> None:
    torch.manual_seed(0)
    network = unet(rank, 1, 2, (4, 4, 6)).eval()
    before = state_of(network)
    cohort = noise_cohort(rank, cases=3, channels=1, shape=(8,) * rank)
    found = find_skips(network, cohort, taps(*STAGES))
    assert found == (
        Edge(Tap("enc1"), Tap("dec1"), hold=tuple(taps("enc2", "bottleneck", "dec2"))),
        Edge(Tap("enc2"), Tap("dec2"), hold=tuple(taps("bottleneck"))),
    )
    assert find_skips(network, cohort, taps(*STAGES[::-1])) == found
    assert is_untouched(network, before)


def test_layers_that_are_not_analyzed_hold_nothing() -> None:
    """Without dec2, the skip of enc2 leads to dec1; without the decoder both lead to the output."""
    network = unet(2, 1, 2, (4, 4, 6)).eval()
    cohort = noise_cohort(2, cases=2, channels=1, shape=(8, 8))
    found = find_skips(network, cohort, taps("enc1", "enc2", "bottleneck", "dec1"))
    assert pairs(found) == [("enc1", "dec1"), ("enc2", "dec1")]
    encoder = taps(*STAGES[:3])
    assert pairs(find_skips(network, cohort, encoder)) == [("enc1", "output"), ("enc2", "output")]
    assert find_skips(network, cohort, encoder, to_output=False) == ()


class Trunk(nn.Module):
    """An encoder and a decoder without skip connections; class 1 is the sum of ``up``."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank = rank
        for name in ("down", "deep", "up"):
            self.add_module(name, convolution(rank, 4, 4))
        self.head = convolution(rank, 4, 2)

    def forward(self, image: Tensor) -> Tensor:
        pool = (functional.max_pool2d, functional.max_pool3d)[self.rank - 2]
        value = self.deep(pool(self.down(image), 2))
        size = tuple(image.shape[2:])
        return self.head(self.up(functional.interpolate(value, size=size, mode="nearest")))


@pytest.mark.parametrize("rank", [2, 3])
def test_a_network_without_skips_has_none(rank: int) -> None:
    cohort = noise_cohort(rank, cases=2, channels=4, shape=(8,) * rank)
    assert find_skips(Trunk(rank).eval(), cohort, taps("down", "deep", "up")) == ()


class Residual(nn.Module):
    """Two residual blocks after a stem; ``closed`` multiplies their shortcuts."""

    def __init__(self, shortcut: float = 1.0) -> None:
        super().__init__()
        self.stem, self.head = convolution(2, 4, 4), convolution(2, 4, 2)
        for name in ("one", "two"):
            self.add_module(f"branch_{name}", convolution(2, 4, 4))
            self.add_module(f"sum_{name}", nn.ReLU())
        self.shortcut = shortcut

    def forward(self, image: Tensor) -> Tensor:
        value = self.stem(image)
        for name in ("one", "two"):
            branch = self.get_submodule(f"branch_{name}")(value)
            value = self.get_submodule(f"sum_{name}")(self.shortcut * value + branch)
        return self.head(value)


BLOCKS = ("stem", "branch_one", "sum_one", "branch_two", "sum_two")


def test_shortcuts_of_residual_blocks_are_found() -> None:
    cohort = noise_cohort(2, cases=3, channels=4)
    found = find_skips(Residual().eval(), cohort, taps(*BLOCKS))
    assert pairs(found) == [("stem", "sum_one"), ("sum_one", "sum_two")]
    whole = find_skips(Residual().eval(), cohort, taps("stem", "sum_one", "sum_two"))
    assert whole == ()
    assert find_skips(Residual(0.0).eval(), cohort, taps(*BLOCKS)) == ()


class Gated(nn.Module):
    """A skip that is open only for images whose first voxel is above a limit."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.a, self.b, self.c = (convolution(2, 4, 4) for _ in range(3))
        self.limit = limit

    def forward(self, image: Tensor) -> Tensor:
        first = self.a(image)
        opened = (image[:, :1, :1, :1] > self.limit).to(image)
        return self.c(self.b(first) + opened * first)


def test_a_route_that_is_closed_in_the_first_case_is_found_in_the_second() -> None:
    cohort = noise_cohort(2, cases=4, channels=4)
    firsts = [float(case.image.data[0, 0, 0]) for case in cohort]
    assert firsts[0] < firsts[1]
    half_way = (firsts[0] + firsts[1]) / 2
    names = taps("a", "b", "c")
    assert pairs(find_skips(Gated(half_way).eval(), cohort, names)) == [("a", "c")]
    assert (
        find_skips(Gated(half_way).eval(), cohort.only(["case0"]), names, replaced_by="zero") == ()
    )


@pytest.mark.parametrize("rank", [2, 3])
def test_a_skip_that_carries_everything_leaves_the_trunk_without_links(rank: int) -> None:
    network, cohort = Skipped(rank).eval(), noise_cohort(rank, channels=4, cases=4)
    nodes = [node for layer in "abc" for node in units_of(layer, 0, 1)]
    skips = find_skips(network, cohort, taps("a", "b", "c"))
    assert skips == (Edge(Tap("a"), Tap("c"), hold=(Tap("b"),)),)
    found = link(network, cohort, nodes, skips=skips, settings=NONE)
    by_edge = {(each.edge.source.path, each.edge.target.path): each for each in found.matrices}
    assert np.allclose(by_edge["a", "c"].array("weight"), np.eye(2), atol=1e-5)
    assert np.isnan(by_edge["b", "c"].array("weight")).all()
    assert by_edge["a", "c"].share == pytest.approx(1)
    assert np.isnan(by_edge["b", "c"].share)


def test_the_share_of_a_skip_is_its_part_of_the_whole_effect() -> None:
    network, cohort = Skipped(2, trunk=0.5).eval(), noise_cohort(channels=4, cases=4)
    nodes = [node for layer in "abc" for node in units_of(layer, 0, 1)]
    outputs = (ClassOutput("one", (1,)),)
    skips = find_skips(network, cohort, taps("a", "b", "c"))
    found = link(network, cohort, nodes, outputs, skips=skips, settings=NONE)
    shares = [each.share for each in found.matrices]
    assert shares == pytest.approx([1, 1, 1, 1 / 1.5**2], abs=1e-4)
    assert [each.edge.route for each in found.matrices] == ["", "", "", "around b"]


def test_named_pairs_hold_what_lies_between_them() -> None:
    network, cohort = Skipped(2).eval(), noise_cohort(channels=4, cases=2)
    context = Context.open(Model.of(network), next(iter(cohort)).image)
    layers = taps("c", "a", "b")
    assert named_skips([("a", "c"), ("b", "output"), ("a", "c")], layers, context) == (
        Edge(Tap("a"), Tap("c"), hold=(Tap("b"),)),
        Edge(Tap("b"), None, hold=(Tap("c"),)),
    )
    for wrong, words in (
        (("a", "d"), "'d' is not an analyzed layer"),
        (("a", "b"), "a to b goes around no analyzed layer"),
        (("c", "a"), "c to a goes around no analyzed layer"),
        (("c", "output"), "c to output goes around no analyzed layer"),
    ):
        with pytest.raises(ConfigError, match=words):
            named_skips([wrong], layers, context)


def test_what_cannot_be_searched_is_refused_in_a_sentence() -> None:
    cohort = noise_cohort(channels=4, cases=2)
    many = taps(*(f"a#{number}" for number in range(MOST_LAYERS + 1)))
    with pytest.raises(ConfigError, match=f"among {MOST_LAYERS} layers at most"):
        find_skips(Skipped(2).eval(), cohort, many)
    with pytest.raises(ConfigError, match="only one"):
        find_skips(Skipped(2).eval(), cohort.only(["case0"]), taps("a", "b", "c"))
    windowed = Model(Skipped(2).eval(), window={"size": [6, 6], "overlap": 0.5})
    with pytest.raises(ModelError, match="without windows"):
        find_skips(windowed, cohort, taps("a", "b", "c"))
    with pytest.raises(ModelError, match="no layer 'd'"):
        find_skips(Skipped(2).eval(), cohort, taps("a", "b", "d"))


def test_too_few_random_sets_are_a_remark() -> None:
    nodes = [node for layer in "abc" for node in units_of(layer, 0, 1)]
    cohort = noise_cohort(channels=4, cases=2)
    few = link(Skipped(2).eval(), cohort, nodes, settings=LinkSettings(null_sets=3, screen=0))
    assert any("p cannot fall below" in remark for remark in few.remarks)
    assert all(each.least_p <= each.p for each in few if not np.isnan(each.p))
