"""A layer that returns several tensors has a map for each of them, by name."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from networks import assert_close, images
from torch import Tensor, nn

from voxplain.attribution import explain
from voxplain.errors import ModelError


class Pair(NamedTuple):
    """Two features of an image."""

    edges: Tensor
    shapes: Tensor


class Twin(nn.Module):
    """Two convolutions of one image, and the number of the larger, which has no gradient."""

    def __init__(self, rank: int, named: bool) -> None:
        super().__init__()
        conv = getattr(nn, f"Conv{rank}d")
        self.first, self.second = conv(1, 2, 3, padding=1), conv(1, 3, 3, padding=1, stride=2)
        self.named = named

    def forward(self, image: Tensor) -> Pair | list[object]:
        both = self.first(image), self.second(image)
        return Pair(*both) if self.named else [both[0], [both[1], both[1].argmax(dim=1)]]


class Network(nn.Module):
    def __init__(self, rank: int, named: bool) -> None:
        super().__init__()
        self.twin = Twin(rank, named)
        self.head = nn.Linear(5, 2)

    def forward(self, image: Tensor) -> Tensor:
        first, second = self.twin(image)
        second = second if isinstance(second, Tensor) else second[0]
        means = [each.square().flatten(2).mean(dim=2) for each in (first, second)]
        scores: Tensor = self.head(torch.cat(means, dim=1))
        return scores


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("named", [True, False])
def test_each_tensor_has_the_gradient_there(rank: int, named: bool) -> None:
    torch.manual_seed(0)
    network, inputs = Network(rank, named), images(rank, 1, 2)
    method = {"name": "vanilla_layer_visualization", "layers": "twin"}
    found = explain(network, inputs, method, 1)
    first = network.twin.first(inputs).detach().requires_grad_(True)
    second = network.twin.second(inputs).detach().requires_grad_(True)
    means = [each.square().flatten(2).mean(dim=2) for each in (first, second)]
    score = network.head(torch.cat(means, dim=1))[:, 1].sum()
    expected = torch.autograd.grad(score, [first, second])
    names = [f"vanilla_layer_visualization@twin[{number}]" for number in (0, 1)]
    assert list(found) == names
    for name, gradient in zip(names, expected, strict=True):
        assert_close(found[name].map, gradient, 1e-5)
    layers = [attribution.layer for attribution in found.values()]
    assert [layer.path for layer in layers if layer] == ["twin[0]", "twin[1]"]
    assert [layer.stride[0] for layer in layers if layer] == [1.0, 2.0]
    inner = explain(network, inputs, {**method, "layers": "twin.second"}, 1)
    assert_close(found[names[1]].map, inner["vanilla_layer_visualization"].map, 1e-6)


def test_one_of_them_by_its_number() -> None:
    torch.manual_seed(0)
    network, inputs = Network(2, named=True), images(2, 1, 1)
    method = {"name": "layer_gradient_x_activation", "layers": "twin[1]"}
    found = explain(network, inputs, method, 1)["layer_gradient_x_activation"]
    assert found.map.shape[1] == 3
    cam = explain(network, inputs, {"name": "hires_cam", "layer": "twin[1]", "relu": False}, 1)
    inner = explain(
        network, inputs, {"name": "hires_cam", "layer": "twin.second", "relu": False}, 1
    )
    assert_close(cam["hires_cam"].map, inner["hires_cam"].map, 1e-6)
    with pytest.raises(ModelError, match=r"(returns|there are) 2 tensors"):
        explain(network, inputs, {**method, "layers": "twin[2]"}, 1)
