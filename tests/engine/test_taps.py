"""Which values taps read: numbered calls, inputs and outputs, layers changed in place."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from networks import assert_close, classifier, images, segmenter, untouched
from torch import Tensor, nn
from torch.nn import functional

from voxplain.attribution import Attribution, explain
from voxplain.engine.taps import Tap, tapping
from voxplain.errors import ModelError

CLASS_ONE: dict[str, Any] = {"kind": "class_score", "label": 1}


def layer_maps(
    network: nn.Module, shown: Tensor, name: str, layers: Any, **options: Any
) -> dict[str, Attribution]:
    method = {"name": name, "layers": layers, **options}
    with untouched(network):
        return explain(network, shown, method, CLASS_ONE)


class Reused(nn.Module):
    """One convolution and one rectifier, each called twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, image: Tensor) -> Tensor:
        first = self.relu(self.conv(image))
        return self.relu(self.conv(first))


class TestReused:
    @pytest.mark.parametrize(("path", "call"), [("conv#0", 0), ("conv#1", 1), ("conv", 1)])
    def test_every_call_has_its_number(self, path: str, call: int) -> None:
        network, shown = Reused(), images(2, 2, 2)
        first = network.conv(shown)
        second = network.conv(first.relu())
        activation = [first, second][call].detach()
        for name, expected in (
            ("layer_activation", activation),
            ("layer_gradient_x_activation", activation * _gradient(network, shown, call)),
        ):
            (attribution,) = layer_maps(network, shown, name, path).values()
            assert_close(attribution.map, expected, 1e-6)

    def test_the_last_call_is_taken_with_a_warning(self) -> None:
        (attribution,) = layer_maps(Reused(), images(2, 2), "layer_activation", "conv").values()
        assert any(
            "called 2 times; its last call is taken, conv#0" in t
            for t in attribution.stats.warnings
        )
        (numbered,) = layer_maps(Reused(), images(2, 2), "layer_activation", "conv#1").values()
        assert not numbered.stats.warnings
        assert numbered.layer is not None
        assert numbered.layer.call == 1

    def test_several_calls_in_one_method(self) -> None:
        attributions = layer_maps(Reused(), images(2, 2), "layer_activation", ["conv#0", "conv#1"])
        assert list(attributions) == ["layer_activation@conv#0", "layer_activation@conv#1"]

    def test_deep_lift_and_paths_at_a_call(self) -> None:
        """All of the score passes through the first call, so its map sums to the whole change."""
        network, shown = Reused().double(), images(2, 2, 2).double()
        with torch.no_grad():
            change = (network(shown) - network(shown * 0))[:, 1].flatten(1).sum(1)
        for name in ("layer_deep_lift", "layer_conductance"):
            options = {"steps": 300, "quadrature": "midpoint"} if "conductance" in name else {}
            (attribution,) = layer_maps(network, shown, name, "conv#0", **options).values()
            tolerance = 1e-3 if options else 1e-9
            torch.testing.assert_close(
                attribution.map.flatten(1).sum(1), change, rtol=tolerance, atol=tolerance
            )

    @pytest.mark.parametrize("path", ["conv#2", "conv#7"])
    def test_calls_that_do_not_happen(self, path: str) -> None:
        with pytest.raises(ModelError, match=rf"conv.*2 times|{path}"):
            layer_maps(Reused(), images(2, 2), "layer_activation", path)

    def test_numbers_must_be_numbers(self) -> None:
        with pytest.raises(ModelError, match="what follows # is the number of a call"):
            layer_maps(Reused(), images(2, 2), "layer_activation", "conv#last")


def _gradient(network: nn.Module, shown: Tensor, call: int) -> Tensor:
    first = network.conv(shown)
    leaf = (first if call == 0 else network.conv(first.relu())).detach().requires_grad_(True)
    output = network.conv(leaf.relu()).relu() if call == 0 else leaf.relu()
    (gradient,) = torch.autograd.grad(output[:, 1].sum(), leaf)
    return gradient


class InPlace(nn.Module):
    """Functions that overwrite the output of a layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.conv = nn.Conv2d(2, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Conv2d(3, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        features = self.norm(self.conv(image))
        functional.leaky_relu_(features, 0.1)
        features = features + 1
        features[:, 0].mul_(2)
        return self.head(features)


class Overwriting(InPlace):
    """The output of the rectifier, which its gradient needs, is overwritten."""

    def forward(self, image: Tensor) -> Tensor:
        features = functional.relu_(self.norm(self.conv(image)))
        features += 1
        return self.head(features)


def test_in_place_calls_after_a_tap_do_not_reach_it() -> None:
    network, shown = InPlace().eval(), images(2, 2, 2)
    with torch.no_grad():
        expected = network.norm(network.conv(shown))
    (attribution,) = layer_maps(network, shown, "layer_activation", "norm").values()
    assert_close(attribution.map, expected, 1e-6)
    assert (attribution.map < 0).any()
    leaf = expected.clone().requires_grad_(True)
    scale = torch.tensor([2.0, 1, 1]).view(1, 3, 1, 1)
    output = network.head((functional.leaky_relu(leaf, 0.1) + 1) * scale)
    (gradient,) = torch.autograd.grad(output[:, 1].sum(), leaf)
    (attribution,) = layer_maps(network, shown, "vanilla_layer_visualization", "norm").values()
    assert_close(attribution.map, gradient, 1e-6)


@pytest.mark.parametrize("name", ["saliency", "grad_cam", "integrated_gradients"])
def test_overwritten_values_are_an_error_and_not_a_wrong_gradient(name: str) -> None:
    """Also not in the first batch, whose saved tensors are counted."""
    network = Overwriting().eval()
    with (
        untouched(network),
        pytest.raises(ModelError, match="overwrites in place a value that its"),
    ):
        explain(network, images(2, 2, 2), name, CLASS_ONE)


@pytest.mark.parametrize("rank", [2, 3])
def test_the_input_of_a_layer_is_the_output_of_the_layer_before(rank: int) -> None:
    network, shown = segmenter(rank, 2), images(rank, 2, 2)
    for name in ("layer_activation", "layer_gradient_x_activation", "layer_deep_lift"):
        (entering,) = layer_maps(network, shown, name, "conv2", side="input").values()
        (leaving,) = layer_maps(network, shown, name, "act1").values()
        assert_close(entering.map, leaving.map, 1e-6, name)
    (image,) = layer_maps(network, shown, "layer_activation", "conv1", side="input").values()
    assert_close(image.map, shown, 0.0)


def test_all_is_every_leaf_in_order() -> None:
    network = nn.Sequential(segmenter(2, 2), nn.Softplus())
    attributions = layer_maps(network, images(2, 2), "layer_activation", "all")
    paths = [key.removeprefix("layer_activation@") for key in attributions]
    assert paths == ["0.conv1", "0.act1", "0.conv2", "0.act2", "0.head", "1"]


def test_blocks_may_be_tapped() -> None:
    network, shown = nn.Sequential(segmenter(2, 2), nn.Softplus()), images(2, 2)
    (attribution,) = layer_maps(network, shown, "layer_activation", "0").values()
    assert_close(attribution.map, network[0](shown).detach(), 1e-6)


def test_the_default_layer_is_the_last_feature_map() -> None:
    (attribution,) = layer_maps(classifier(2, 2), images(2, 2), "layer_activation", ()).values()
    assert attribution.layer is not None
    assert attribution.layer.path == "act2"


def test_taps_are_removed_at_the_end_of_their_block() -> None:
    network = segmenter()
    taps = (Tap("conv1"), Tap("act2", "input"))
    with untouched(network):
        with tapping(network, taps) as tapped:
            network(images())
        assert tapped[taps[0]].shape == (1, 4, 6, 6)
        assert tapped.calls(taps[1]) == 1
        with pytest.raises(ZeroDivisionError), tapping(network, taps):
            raise ZeroDivisionError
        with (
            pytest.raises(ModelError, match="has no layer 'conv9'"),
            tapping(network, (Tap("conv9"),)),
        ):
            pass
