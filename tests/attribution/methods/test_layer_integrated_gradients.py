"""Layer integrated gradients: a path of one layer, while the rest of the network sees the image."""

from __future__ import annotations

from typing import Any

import captum.attr as peer
import pytest
import torch
from captum_cases import build, every_case
from networks import assert_close, images, untouched
from test_captum_layers import LAYERS, check
from torch import Tensor, nn

from voxplain.attribution import explain
from voxplain.errors import TargetError
from voxplain.models.model import Model

NAME = "layer_integrated_gradients"


@every_case
def test_as_captum_has_it(task: str, rank: int) -> None:
    case = build(task, rank)

    def theirs(net: nn.Module, layer: nn.Module, x: Tensor, enters: bool) -> Tensor:
        actual: Tensor = peer.LayerIntegratedGradients(net, layer).attribute(
            x,
            baselines=torch.zeros_like(x),
            target=0,
            n_steps=5,
            attribute_to_layer_input=enters,
        )
        return actual

    check(case, {"name": NAME, "steps": 5}, theirs, layers=LAYERS)


class Skipping(nn.Module):
    """S(x) = sum of softplus(2 x) * x: one layer, and a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.constant_(self.twice.weight, 2)

    def forward(self, image: Tensor) -> Tensor:
        through = nn.functional.softplus(self.twice(image))
        return (through * image).flatten(1).sum(1, keepdim=True)


def test_what_goes_around_the_layer_sees_the_image() -> None:
    """The map is x (softplus(2 x) - softplus(2 b)): only the factor of the layer moves."""
    network, inputs = Skipping().double(), images(2, 1, 2).double()
    method = {"name": NAME, "layers": "twice", "steps": 40, "baseline": 0.25}
    with untouched(network):
        attribution = explain(network, inputs, method, 1)[NAME]
    interpolated = nn.functional.softplus(2 * inputs) - nn.functional.softplus(torch.tensor(0.5))
    assert_close(attribution.map, inputs * interpolated, 1e-9)


class Twice(nn.Module):
    """One layer called two times."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.layer(self.layer(image).tanh()).pow(2).flatten(1).sum(1, keepdim=True)


@pytest.mark.parametrize("path", ["layer", "layer#0", "layer#1"])
def test_calls_of_a_layer_move_one_by_one(path: str) -> None:
    network, inputs = Twice().double(), images(2, 1, 2).double()
    attribution = explain(network, inputs, {"name": NAME, "layers": path, "steps": 30}, 1)[NAME]
    change = network(inputs) - network(torch.zeros_like(inputs))
    torch.testing.assert_close(attribution.map.flatten(1).sum(1), change.detach()[:, 0])
    assert list(attribution.stats.flow or ()) == pytest.approx([1, 1])


@every_case
def test_several_layers_in_one_call(task: str, rank: int) -> None:
    """Layers without a bypass."""
    case = build(task, rank, torch.float64)
    network, inputs, target = case.network, case.images, case.target
    attributions = explain(
        network, inputs, {"name": NAME, "layers": list(LAYERS), "steps": 64}, target
    )
    assert set(attributions) == {f"{NAME}@{layer}" for layer in LAYERS}
    for layer in LAYERS:
        spec = {"name": NAME, "layers": layer, "steps": 64}
        alone = explain(network, inputs, spec, target)[NAME]
        assert torch.equal(alone.map, attributions[f"{NAME}@{layer}"].map)
        assert alone.stats.flow == attributions[f"{NAME}@{layer}"].stats.flow
        assert list(alone.stats.flow or ()) == pytest.approx([1] * len(inputs), abs=0.02)


class TestWindows:
    """Each window moves its own activations; S is the sum over windows."""

    def model(self) -> Model:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Softplus(), nn.Conv2d(3, 2, 1))
        return Model(network.double(), window={"size": 4, "overlap": 0.5})

    def test_complete_for_raw_scores(self) -> None:
        model, inputs = self.model(), images(2, 1, 1).double()
        spec: dict[str, Any] = {"name": NAME, "layers": "0", "steps": 24}
        attribution = explain(model, inputs, spec, {"kind": "pixelwise", "label": 1})[NAME]
        assert list(attribution.stats.flow or ()) == pytest.approx([1], abs=1e-6)

    def test_refused_for_probabilities(self) -> None:
        target = {"kind": "pixelwise", "label": 1, "link": "probability"}
        with pytest.raises(TargetError, match="raw scores"):
            explain(self.model(), images(2, 1, 1).double(), {"name": NAME, "layers": "0"}, target)
