"""Relevance and what is absorbed sum to the score; winning probability and what is lost to 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxplain.attribution import Attribution, explain
from voxplain.engine.passes.conservation import Conservation


def _assigned(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, :, :2] = 0.4
    return y


def _into_constants(x: Tensor) -> Tensor:
    y = torch.full_like(x, 0.6)
    y[:, :, 1:-1] = x[:, :, 1:-1]
    return y


def _index_filled(x: Tensor) -> Tensor:
    return x.index_fill(3, torch.tensor([0, 2]), 0.5)


CONSTANTS: dict[str, Callable[[Tensor], Tensor]] = {
    "pad": lambda x: F.pad(x, (1, 2, 0, 1), value=0.7),
    "negative pad": lambda x: F.pad(x, (1, 2, 0, 1), value=-1.5),
    "pad of zeros": lambda x: F.pad(x, (1, 1)),
    "reflection": lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    "masked_fill": lambda x: x.masked_fill(torch.eye(8, 6).bool(), 0.7),
    "masked_fill in place": lambda x: x.clone().masked_fill_(torch.eye(8, 6).bool(), 0.7),
    "where": lambda x: torch.where(torch.eye(8, 6).bool(), x, torch.tensor(0.5)),
    "assigned": _assigned,
    "into constants": _into_constants,
    "index_fill": _index_filled,
    "cat": lambda x: torch.cat([x, torch.full_like(x, 0.3)], 2),
}


class Between(nn.Module):
    """A function between two convolutions, behind and before a norm."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.function = function
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 1, bias=False)
        self.norm, self.head = nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, image: Tensor) -> Tensor:
        hidden = self.function(self.first(image).relu())
        return self.head(self.second(self.norm(hidden)).relu().mean((2, 3)))


def _books(network: nn.Module, image: Tensor, method: Any) -> tuple[Attribution, dict[str, float]]:
    (found,) = explain(network.double().eval(), image.double(), method, 1).values()
    return found, dict(found.stats.streams[0]["conservation"])


@pytest.mark.parametrize("name", CONSTANTS)
def test_relevance_of_constants_is_booked(name: str) -> None:
    image = torch.rand(1, 1, 8, 6, generator=torch.Generator().manual_seed(1))
    for composite in ("epsilon_gamma_box", "epsilon", "alpha2_beta1"):
        found, books = _books(
            Between(CONSTANTS[name]), image, {"name": "lrp", "composite": composite}
        )
        score = books.pop("score")
        assert score == pytest.approx(found.stats.scores[0])
        assert sum(books.values()) == pytest.approx(score, rel=1e-9)


@pytest.mark.parametrize("name", CONSTANTS)
def test_probability_of_constants_is_booked(name: str) -> None:
    image = torch.rand(1, 1, 8, 6, generator=torch.Generator().manual_seed(1))
    found, books = _books(Between(CONSTANTS[name]), image, "excitation_backprop")
    assert sum(books.values()) == pytest.approx(1, rel=1e-9)
    assert books["map"] == pytest.approx(float(found.map.sum()), rel=1e-9)


@pytest.mark.parametrize("value", [-1000.0, 0.0, 1e-3, 1.0, 40.0])
@pytest.mark.parametrize(
    "composite", ["epsilon_gamma_box", "epsilon", "epsilon_plus", "alpha2_beta1"]
)
@pytest.mark.parametrize("rank", [2, 3])
def test_books_close_on_images_without_contrast(rank: int, composite: str, value: float) -> None:
    torch.manual_seed(0)
    conv, pool = {
        2: (nn.Conv2d, nn.AdaptiveAvgPool2d),
        3: (nn.Conv3d, nn.AdaptiveAvgPool3d),
    }[rank]
    network = nn.Sequential(
        conv(2, 4, 3, padding=1), nn.ReLU(), pool(1), nn.Flatten(), nn.Linear(4, 3)
    ).eval()
    image = torch.full((1, 2, *(7, 6, 5)[:rank]), value)
    (found,) = explain(network, image, {"name": "lrp", "composite": composite}, 1).values()
    books = dict(found.stats.streams[0]["conservation"])
    score = books.pop("score")
    assert sum(books.values()) == pytest.approx(score, rel=1e-4)
    assert float(found.map.abs().max()) <= 10 * abs(score) + 1e-6


def test_the_box_rule_gives_nothing_where_all_intensities_are_least_favorable() -> None:
    """A region at the lowest intensity under weights that are all positive, beside a bright one."""
    layer = nn.Conv2d(1, 1, 1, bias=True)
    nn.init.constant_(layer.weight, 0.3)
    nn.init.constant_(layer.bias, 2.0)
    network = nn.Sequential(layer, nn.ReLU(), nn.Flatten(), nn.Linear(48, 2)).eval()
    image = torch.full((1, 1, 8, 6), -1000.7)
    image[..., 3:5, 2:4] = 900.3
    (found,) = explain(network, image, "lrp", 1).values()
    assert not found.map[0, 0][image[0, 0] < 0].any()


def test_remarks_divide_by_the_score() -> None:
    """S = 1 / (1 + exp(-w x)): the link holds what the first-order part leaves out."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 1)).eval()
    with torch.no_grad():
        network[1].weight.fill_(0.5)
        network[1].bias.fill_(0.0)
    target = {"kind": "class_score", "label": 1, "link": "probability"}
    method = {"name": "lrp", "composite": "epsilon"}
    found = explain(network, torch.full((1, 1, 2, 2), 2.0), method, target)["lrp"]
    (remark,) = [text for text in found.stats.warnings if "relevance at the image" in text]
    probability = 1 / (1 + torch.tensor(-4.0, dtype=torch.float64).exp())
    on_map = float(4 * probability * (1 - probability) / probability)
    assert f"sums to {on_map:.0%} of the score" in remark
    assert f"the nonlinear link of the score holds {1 - on_map:.0%}" in remark


def test_negative_intensities_are_named() -> None:
    network = Between(lambda x: x).eval()
    image = torch.rand(1, 1, 8, 6) + 0.1
    image[..., :2] *= -1
    for method in ("excitation_backprop", "contrastive_excitation_backprop"):
        (found,) = explain(network, image, method, 1).values()
        assert any("33% of the intensities" in text for text in found.stats.warnings)
        (found,) = explain(network, image.abs(), method, 1).values()
        assert not any("intensities" in text for text in found.stats.warnings)


@pytest.mark.parametrize("holder", ["bias", "epsilon"])
def test_the_remark_counts_what_biases_and_stabilizers_hold(holder: str) -> None:
    """Of three points with a score of 10 each, shown twice, 6 ended before the image."""
    books = Conservation()
    for _ in range(3):
        shares = {"bias": 0.0, "epsilon": 0.0, holder: 2 * 6.0}
        books.add_backward(torch.tensor([10.0, 10.0]), torch.tensor([4.0, 4.0]), shares, copies=2)
        books.add_maps(torch.tensor([10.0]), torch.tensor([4.0]))
    facts = {"score": 10, "map": 4, "link": 0, "padding": 0, "bias": 0, "epsilon": 0, holder: 6}
    assert books.facts(3) == pytest.approx(facts)
    assert books.remark() == (
        "relevance at the image sums to 40% of the score: "
        "biases, shifts of norms and stabilizers hold 60%"
    )
