"""Activations of layers and interventions on them, against forwards written out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from voxplain.engine.context import Context
from voxplain.engine.interventions import Replacement, UnitSet
from voxplain.engine.observation import observe
from voxplain.engine.taps import Tap
from voxplain.models.model import Model

FIRST, SECOND = Tap("first"), Tap("second")


class TwoLayers(nn.Module):
    """Two convolutions and a head, in any rank."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        convolution = (nn.Conv2d, nn.Conv3d)[rank - 2]
        self.first = convolution(2, 4, 3, padding=1)
        self.second = convolution(4, 3, 3, padding=1, stride=1)
        self.head = convolution(3, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(torch.relu(self.second(torch.relu(self.first(image)))))


def case(rank: int, seed: int = 0) -> tuple[TwoLayers, Tensor]:
    torch.manual_seed(seed)
    network = TwoLayers(rank).eval()
    return network, torch.randn(1, 2, *(9, 8, 7)[:rank])


@pytest.mark.parametrize("rank", [2, 3])
def test_what_is_observed_is_what_the_layers_return(rank: int) -> None:
    network, image = case(rank)
    seen = observe(Context.open(network, image), (FIRST, SECOND))
    with torch.no_grad():
        first = network.first(image)
        assert torch.equal(seen[FIRST], first[0])
        assert torch.allclose(seen[SECOND], network.second(torch.relu(first))[0], atol=1e-6)
        assert torch.allclose(seen.output, network(image), atol=1e-6)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("outside", [False, True])
def test_channels_are_replaced_and_the_others_are_not(rank: int, outside: bool) -> None:
    network, image = case(rank)
    context = Context.open(network, image)
    other = observe(Context.open(network, image.flip(2)), (FIRST,))[FIRST]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    replacement = Replacement(FIRST, UnitSet((1, 3)), other, outside)
    seen = observe(context, (FIRST, SECOND), (replacement,))
    with torch.no_grad():
        expected = network.first(image)[0].clone()
        channels = [0, 2] if outside else [1, 3]
        expected[channels] = other[channels]
        assert torch.allclose(seen[FIRST], expected, atol=1e-6)
        after = network.second(torch.relu(expected[None]))
        assert torch.allclose(seen[SECOND], after[0], atol=1e-5)
        assert torch.allclose(seen.output, network.head(torch.relu(after)), atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not network.first._forward_hooks


def test_a_direction_is_replaced_and_what_is_orthogonal_to_it_is_not() -> None:
    network, image = case(2)
    clean = observe(Context.open(network, image), (FIRST,))[FIRST]
    other = torch.randn_like(clean)
    weights = torch.randn(1, 4)
    replacement = Replacement(FIRST, UnitSet(directions=weights), other)
    seen = observe(Context.open(network, image), (FIRST,), (replacement,))[FIRST]
    unit = weights[0] / weights.norm()
    along = torch.einsum("k,kxy->xy", unit, other - clean)
    assert torch.allclose(seen, clean + unit[:, None, None] * along, atol=1e-5)


@pytest.mark.parametrize("rank", [2, 3])
def test_windows_are_observed_one_by_one_and_blended(rank: int) -> None:
    network, image = case(rank)
    model = Model(network, window={"size": [6] * rank, "overlap": 0.5})
    context = Context.open(model, image)
    seen = observe(context, (FIRST,))
    layout = context.layout
    assert layout is not None
    for number, position in enumerate(layout.positions):
        window = layout.cut(layout.pad(image[0]), [position])
        assert torch.allclose(seen[FIRST][:, number], network.first(window)[0], atol=1e-6)
    assert torch.allclose(seen.output, model.output(image), atol=1e-5)
    assert seen.on_image(FIRST).shape == (4, *image.shape[2:])


def test_windows_get_the_values_of_the_same_window_elsewhere() -> None:
    network, image = case(2)
    model = Model(network, window={"size": [6, 6], "overlap": 0.5})
    other = observe(Context.open(model, image.flip(3)), (FIRST,))
    whole = Replacement(FIRST, UnitSet((0, 1, 2, 3)), other[FIRST])
    seen = observe(Context.open(model, image), (FIRST,), (whole,))
    assert torch.allclose(seen.output, other.output, atol=1e-6)


def test_values_of_another_size_are_interpolated() -> None:
    network, image = case(3)
    constant = torch.full((4, 2, 3, 2), 5.0)
    replacement = Replacement(FIRST, UnitSet((2,)), constant)
    seen = observe(Context.open(network, image), (FIRST,), (replacement,))
    assert torch.allclose(seen[FIRST][2], torch.full(image.shape[2:], 5.0))


def test_a_layer_that_does_not_exist_is_named_with_the_nearest() -> None:
    from voxplain.errors import ModelError

    network, image = case(2)
    with pytest.raises(ModelError, match="first"):
        observe(Context.open(network, image), (Tap("frist"),))
