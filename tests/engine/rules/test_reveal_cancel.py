"""RevealCancel: closed forms of the paper, completeness, and where it is the Rescale rule."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from networks import classifier, images, segmenter
from rule_passes import AsNetwork, run_pass
from torch import Tensor, nn

from voxplain.attribution import explain
from voxplain.engine.rules import DeepLiftRule

RESCALE, CANCEL = DeepLiftRule(), DeepLiftRule("reveal_cancel")


def least(x: Tensor) -> Tensor:
    """min(x1, x2), written as in the paper."""
    return (x[:, :1] - (x[:, :1] - x[:, 1:]).relu()).sum(1, keepdim=True)


def contributions(function: Any, x: Tensor, b: Tensor, rule: DeepLiftRule) -> list[float]:
    network = function if isinstance(function, nn.Module) else AsNetwork(function)
    result = run_pass(network, x, rule, b)
    found: list[float] = ((x - b) * result.gradient).flatten().tolist()
    return found


@pytest.mark.parametrize("values", [(3.0, 1.0), (1.0, 3.0), (2.0, 2.0)])
def test_the_minimum_is_shared(values: tuple[float, float]) -> None:
    """Rescale gives min(x1, x2) to the smaller one alone; RevealCancel half to each."""
    x = torch.tensor([values], dtype=torch.float64)
    b = torch.zeros_like(x)
    assert contributions(least, x, b, CANCEL) == pytest.approx([min(values) / 2] * 2)
    if values[0] != values[1]:
        alone = [value if value == min(values) else 0.0 for value in values]
        assert contributions(least, x, b, RESCALE) == pytest.approx(alone)


@pytest.mark.parametrize("spelling", ["sub", "linear", "inplace", "conv2d", "conv3d", "negated"])
def test_the_minimum_is_shared_in_every_spelling(spelling: str) -> None:
    x = torch.tensor([[3.0, 1.0]], dtype=torch.float64)
    weight = torch.tensor([[1.0, -1.0]], dtype=torch.float64)

    def change(x: Tensor) -> Tensor:
        if spelling == "linear":
            return nn.functional.linear(x, weight)
        if spelling.startswith("conv"):
            rank = int(spelling[4])
            convolution = {2: nn.functional.conv2d, 3: nn.functional.conv3d}[rank]
            ones = (1,) * rank
            return convolution(x.view(1, 2, *ones), weight.view(1, 2, *ones)).flatten(1)
        if spelling == "inplace":
            result = x[:, :1] * 1
            result -= x[:, 1:]
            return result
        if spelling == "negated":
            return torch.rsub(x[:, 1:], x[:, :1]) + 0.0
        return x[:, :1] - x[:, 1:]

    def network(x: Tensor) -> Tensor:
        return x[:, :1] - change(x).relu()

    found = contributions(network, x, torch.zeros_like(x), CANCEL)
    assert found == pytest.approx([0.5, 0.5])


def test_or_is_shared() -> None:
    """relu(1 - relu(1 - x1 - x2)) is 1 if either is: half for each of two, as by Shapley."""

    def either(x: Tensor) -> Tensor:
        return 1 - (1 - x[:, :1] - x[:, 1:]).relu()

    for values in ([1.0, 0.0], [0.0, 1.0], [1.0, 1.0]):
        x = torch.tensor([values], dtype=torch.float64)
        expected = [value / sum(values) for value in values]
        assert contributions(either, x, torch.zeros_like(x), CANCEL) == pytest.approx(expected)


def test_parts_in_closed_form() -> None:
    """y = relu(h), h = 4 - 3 from a baseline of -1: both orders of adding the parts, averaged."""
    x = torch.tensor([[4.0, 3.0]], dtype=torch.float64)

    def network(x: Tensor) -> Tensor:
        return (x[:, :1] - x[:, 1:] - 1).relu()

    # up first: f(3) - f(-1) = 3; up last: f(0) - f(-4) = 0; down last: 0 - 3; down first: 0
    assert contributions(network, x, torch.zeros_like(x), CANCEL) == pytest.approx([1.5, -1.5])
    assert contributions(network, x, torch.zeros_like(x), RESCALE) == pytest.approx([0.0, 0.0])


def test_without_an_affine_map_it_is_rescale() -> None:
    x = torch.randn(1, 5, dtype=torch.float64)
    b = torch.randn(1, 5, dtype=torch.float64)

    def network(x: Tensor) -> Tensor:
        return (x.relu() * 2).sigmoid().sum(1, keepdim=True)

    same = contributions(network, x, b, RESCALE)
    assert contributions(network, x, b, CANCEL) == pytest.approx(same)


class Mixed(nn.Module):
    """Convolutions, batch norm in eval, max pooling, a skip, views and in-place rectifiers."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        convolution = {2: nn.Conv2d, 3: nn.Conv3d}[rank]
        up = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}[rank]
        norm = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[rank]
        self.first, self.second = (convolution(n, 4, 3, padding=1) for n in (2, 4))
        self.norm, self.up = norm(4), up(4, 3, 2, stride=2)
        self.pool = {2: nn.MaxPool2d, 3: nn.MaxPool3d}[rank](2)
        self.head = nn.LazyLinear(3)
        with torch.no_grad():
            self.norm.weight.copy_(torch.tensor([1.0, -2.0, 0.5, -0.3]))
            self.norm.running_mean.normal_()
            self.norm.bias.normal_()

    def forward(self, image: Tensor) -> Tensor:
        values = nn.functional.relu_(self.norm(self.first(image)))
        added = self.second(values)
        added += values
        values = self.pool(nn.functional.leaky_relu(added, 0.1))
        values = self.up(values).flatten(1)
        return self.head(torch.tanh(values.view(len(values), -1)))


@pytest.mark.parametrize("rank", [2, 3])
def test_maps_are_complete(rank: int) -> None:
    torch.manual_seed(0)
    network, inputs = Mixed(rank).eval(), images(rank, 2, 2).double()
    network(inputs.float())
    network.double()
    inputs[:, :, :2] = 0  # as the baseline
    references = images(rank, 2, 5).double()[2:]
    cancel = {"rule": "reveal_cancel"}
    methods: list[Any] = [
        {"name": "deep_lift", **cancel},
        {"name": "deep_lift", "label": "rescaled"},
        {"name": "deep_lift_shap", **cancel},
        {"name": "layer_deep_lift", "layers": ["first", "pool"], **cancel},
        {"name": "layer_deep_lift_shap", "layers": "norm", **cancel},
    ]
    found = explain(network, inputs, methods, 1, references=references)
    for attribution in found.values():
        shares = attribution.stats.flow or [1 - r for r in attribution.stats.completeness or [1]]
        assert list(shares) == pytest.approx([1.0, 1.0], abs=1e-9)
    gap = (found["deep_lift"].map - found["rescaled"].map).norm()
    assert float(gap / found["rescaled"].map.norm()) > 0.05
    alone = explain(network, inputs[1:], methods[0], 1)["deep_lift"].map
    torch.testing.assert_close(alone[0], found["deep_lift"].map[1])


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("build", [classifier, segmenter])
def test_networks_of_each_task_are_complete(rank: int, build: Any) -> None:
    network, inputs = build(rank, 2).double(), images(rank, 2, 2).double()
    method = {"name": "deep_lift", "rule": "reveal_cancel", "baseline": "blur"}
    found = explain(network, inputs, method, 1)["deep_lift"]
    assert max(found.stats.completeness or [1]) < 1e-8


def test_the_network_is_left_as_it_was() -> None:
    network, inputs = classifier().double(), images().double()
    before = network(inputs)
    explain(network, inputs, {"name": "deep_lift", "rule": "reveal_cancel"}, 1)
    assert torch.equal(network(inputs), before)


def test_a_layer_that_is_read_changes_no_other_map() -> None:
    torch.manual_seed(0)
    network, inputs = Mixed(2).eval(), images(2, 2, 1).double()
    network(inputs.float())
    network.double()
    cancel = {"rule": "reveal_cancel"}
    at_layers = {"name": "layer_deep_lift", "layers": ["first", "norm", "pool"], **cancel}
    alone = explain(network, inputs, {"name": "deep_lift", **cancel}, 1)["deep_lift"].map
    beside = explain(network, inputs, [{"name": "deep_lift", **cancel}, at_layers], 1)
    torch.testing.assert_close(beside["deep_lift"].map, alone, rtol=1e-9, atol=1e-12)
    one = explain(network, inputs, {**at_layers, "layers": "first"}, 1)["layer_deep_lift"].map
    torch.testing.assert_close(beside["layer_deep_lift@first"].map, one, rtol=1e-9, atol=1e-12)
