"""The thirteen MONAI networks under excitation backprop: a mass of 1 is conserved."""

from __future__ import annotations

import pytest
import torch
from matrix import MATRIX, image, network
from networks import assert_same_state, state
from torch import nn

from voxplain.engine.rules import Excitation, guard
from voxplain.engine.taps import Tap, tapping

# Layers whose output every path from the output to the image passes.
CUT_LAYERS = {
    "UNet": ("model.2", "model.2.0.conv", "model.1", "model.0"),
    "BasicUNet": ("final_conv", "upcat_1.convs.conv_0.conv"),
    "SegResNet": ("conv_final.0", "up_layers.0", "down_layers.0", "convInit"),
    "DynUNet": ("output_block", "skip_layers", "upsamples.1.conv_block.conv1", "input_block"),
    "AttentionUnet": ("model.2", "model.1.merge", "model.0.conv.0.conv"),
    "VNet": ("out_tr.conv2", "up_tr32", "in_tr"),
    "UNETR": ("out", "decoder2"),
    "SwinUNETR": ("out", "decoder1"),
    "DenseNet121": ("features", "features.denseblock3.denselayer5", "features.transition1.pool"),
    "ResNet10": ("fc", "layer4", "layer2.0", "maxpool", "conv1"),
    "ViT": ("classification_head", "norm", "blocks.1", "blocks.0", "patch_embedding"),
    "EfficientNet": ("_fc", "_conv_head", "_blocks.5.13", "_blocks.4.8"),
    "SEResNet50": ("last_linear", "layer4.1", "layer3.0", "layer2", "layer0"),
}


class _Backward:
    """One backward: the map, and at each cut layer the mass plus what was lost above it."""

    def __init__(self, net: nn.Module, x: torch.Tensor, paths: tuple[str, ...] = ()) -> None:
        rule, leaf = Excitation(), x.clone().requires_grad_()
        taps = tuple(Tap(f"network.{path}") for path in paths)
        self.masses: dict[str, float] = {}
        with guard(net), tapping(net, taps) as tapped, rule.mode() as self.mode:
            self.output = net(leaf)
        for tap in taps:
            tapped[tap].register_hook(lambda q, path=tap.path: self._record(path, q))
        weights = torch.zeros_like(self.output)
        weights[:, 1] = 1
        weights /= weights[:1].sum()
        assert rule.unseen(self.output, leaf) == []
        (self.map,) = torch.autograd.grad(self.output, leaf, weights)

    def _record(self, path: str, q: torch.Tensor) -> None:
        """Called with the complete gradient of a cut layer, before anything is lost below it."""
        self.masses[path] = float(q.double().sum()) + self.mode.lost.amount


def _cases():
    """Every network in 2-D, a few in 3-D, the others among the slow tests."""
    flat = [pytest.param(name, 2, id=f"{name}-2") for name in MATRIX]
    few = {"UNet", "DynUNet", "ViT", "ResNet10"}
    slow = {name: () if name in few else pytest.mark.slow for name in MATRIX}
    solid = [pytest.param(name, 3, id=f"{name}-3", marks=slow[name]) for name in MATRIX]
    return [*flat, *solid]


@pytest.mark.parametrize(("name", "rank"), _cases())
def test_the_mass_at_every_cut_layer_is_what_was_not_lost_before(name, rank):
    net, x = network(name, rank), image(name, rank, light=True)
    before = state(net)
    result = _Backward(net, x, CUT_LAYERS[name])
    assert_same_state(before, state(net))
    assert len(result.masses) == len(CUT_LAYERS[name])
    for path, mass in result.masses.items():
        assert mass == pytest.approx(1, abs=1e-4), path
    total = float(result.map.double().sum()) + result.mode.lost.amount
    assert total == pytest.approx(1, abs=1e-4)
    assert float(result.map.min()) >= 0
    with torch.no_grad():
        plain = net(x)
    assert float((result.output.detach() - plain).abs().max()) <= 1e-6 * float(plain.abs().max())
    assert torch.equal(_Backward(net, x).map, result.map)


@pytest.mark.parametrize("name", ["DenseNet121", "ViT", "SEResNet50"])
def test_nothing_is_lost_where_every_unit_is_raised(name):
    """The other networks have units behind norms with few inputs, none of them positive, or, as
    the head of BasicUNet with these weights, no positive weight at all: there z = 0."""
    net = network(name, 2)
    result = _Backward(net, image(name, 2, light=True), CUT_LAYERS[name])
    assert result.mode.lost.amount == 0
    assert float(result.map.double().sum()) == pytest.approx(1, abs=1e-4)
    assert result.masses == pytest.approx(dict.fromkeys(result.masses, 1), abs=1e-4)


def test_probability_of_a_class_token_is_counted_as_lost():
    """The token is zero here; a trained one gets a share at every residual sum."""
    net, x = network("ViT", 2), image("ViT", 2, light=True)
    with torch.no_grad():
        net.network.cls_token += torch.randn(24, generator=torch.Generator().manual_seed(0))
    result = _Backward(net, x)
    total = float(result.map.double().sum())
    assert 0 < total < 0.9
    assert total + result.mode.lost.amount == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("name", MATRIX)
def test_a_batch_of_four_is_four_times_one(name):
    net, x = network(name, 2).double(), image(name, 2, batch=4, light=True).double()
    together = _Backward(net, x).map
    for i in range(4):
        alone = _Backward(net, x[i : i + 1]).map
        scale = max(float(alone.abs().max()), 1e-12)
        assert float((together[i : i + 1] - alone).abs().max()) <= 1e-9 * scale


@pytest.mark.parametrize("name", ["SegResNet", "AttentionUnet", "ResNet10"])
def test_one_slice_in_three_d_conserves_the_mass(name):
    net, thin = network(name), image(name, 2, light=True)[..., None]
    result = _Backward(net, thin, CUT_LAYERS[name])
    assert result.masses == pytest.approx(dict.fromkeys(result.masses, 1), abs=1e-4)
    total = float(result.map.double().sum()) + result.mode.lost.amount
    assert total == pytest.approx(1, abs=1e-4)
