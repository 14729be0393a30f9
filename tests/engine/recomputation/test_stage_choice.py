"""What is counted and chosen, against bytes computed by hand, and every possible choice."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from networks import untouched
from torch import Tensor, nn

from voxplain.engine.recomputation.choice import StageChoice
from voxplain.engine.recomputation.repeated import repeatable
from voxplain.engine.recomputation.saved_profile import SavedProfile, profile_of
from voxplain.engine.recomputation.stages import Stage, recomputed, staged
from voxplain.engine.spared_memory import saved_on_cpu
from voxplain.engine.tensors import storage_key
from voxplain.models.model import Model
from voxplain.zoo import unet

SIDE = 16
IMAGE = 4 * SIDE**2
"""Bytes of one channel."""


def chain(blocks: int = 4, channels: int = 4) -> nn.Sequential:
    """Convolutions of as many channels, and functions that save what they return."""
    layers: list[nn.Module] = []
    for _ in range(blocks):
        layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.Sigmoid()]
    return nn.Sequential(*layers).eval()


def profiled(network: nn.Module, shown: Tensor) -> SavedProfile:
    model = Model(network)
    with untouched(network), model.at_rest():
        return profile_of(model, shown)


def shown(channels: int = 4, side: int = SIDE, rank: int = 2) -> Tensor:
    return torch.rand(1, channels, *(side,) * rank)


class TestProfile:
    def test_of_a_chain(self) -> None:
        """Each convolution saves what it is given, and each sigmoid what it returns."""
        profile = profiled(chain(), shown())
        assert profile.saved == 5 * 4 * IMAGE  # the image, and what four sigmoids return
        assert all(module.calls == 1 for module in profile.modules.values())

    @pytest.mark.parametrize("rank", [2, 3])
    def test_equals_what_is_alive_between_forward_and_backward(self, rank: int) -> None:
        network, image = unet(rank, 1, 3, (4, 6, 8), norm="instance").eval(), shown(1, 16, rank)
        profile = profiled(network, image)
        assert profile.saved == _alive(network, image, ())

    def test_what_modules_do(self) -> None:
        class Odd(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.register_buffer("steps", torch.zeros(1))

            def forward(self, values: Tensor) -> tuple[Tensor, int]:
                self.steps.add_(1)
                return values * 2, 3

        class Whole(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.odd, self.relu, self.twice = Odd(), nn.ReLU(inplace=True), nn.Sigmoid()

            def forward(self, values: Tensor) -> Tensor:
                values, _ = self.odd(values)
                return self.twice(self.twice(self.relu(values)))

        model = Model(Whole().eval())
        modules = profile_of(model, shown()).modules
        assert (modules["odd"].pure, modules["odd"].returns_tensors) == (False, False)
        assert modules["relu"].writes
        assert not modules["odd"].writes
        assert modules["twice"].calls == 2


class TestChoice:
    def test_of_a_chain_is_the_best_of_all(self) -> None:
        """Against all ways to cut eight layers into runs of any length."""
        network = chain()
        profile = profiled(network, shown())
        choice = StageChoice(network, profile)
        held = []
        for cuts in itertools.product([False, True], repeat=7):
            places = [0, *(place for place, cut in enumerate(cuts, 1) if cut), 8]
            runs = [Stage("", pair) for pair in itertools.pairwise(places)]
            held += [choice.held(runs), choice.held(runs[:-1]), choice.held(runs[1:])]
        chosen = choice.stages()
        assert choice.held(chosen) == min(held)
        assert choice.held(()) == profile.saved > choice.held(chosen)

    def test_held_bytes_of_two_halves(self) -> None:
        """Two inputs are kept, and one half saves what its four layers return."""
        network = chain()
        choice = StageChoice(network, profiled(network, shown()))
        halves = Stage("", (0, 4)), Stage("", (4, 8))
        assert choice.held(halves) == (2 + 2) * 4 * IMAGE

    @pytest.mark.parametrize("rank", [2, 3])
    def test_what_is_kept_is_what_is_alive(self, rank: int) -> None:
        network, image = unet(rank, 1, 3, (4, 6, 8), norm="instance").eval(), shown(1, 16, rank)
        profile = profiled(network, image)
        choice = StageChoice(network, profile)
        stages = choice.stages()
        assert len(stages) > 3
        kept = _alive(network, image, stages)
        inner = max(choice.held((stage,)) - _alive(network, image, (stage,)) for stage in stages)
        assert kept < choice.held(stages) < profile.saved
        assert choice.held(stages) - kept <= inner

    @pytest.mark.parametrize("opened", ["enc1.relu1", "bottleneck.conv1", "dec2", "alias.relu1"])
    def test_no_stage_contains_a_tapped_layer(self, opened: str) -> None:
        network = unet(2, 1, 3, (4, 6, 8), norm="instance").eval()
        network.alias = network.enc1  # another name of the same module
        profile = profiled(network, shown(1, 16))
        assert network.get_submodule(opened)
        closed = {opened, opened.replace("alias", "enc1")}
        for stage in StageChoice(network, profile, {opened}).stages():
            if stage.children is None:
                assert not any(each.startswith(f"{stage.path}.") for each in closed)
            else:
                module = network.get_submodule(stage.path)
                names = [*module._modules][slice(*stage.children)]
                assert not closed & {f"{stage.path}.{name}" for name in names}

    def test_of_a_long_chain_takes_little_time_and_memory(self) -> None:
        network = chain(blocks=40, channels=1)
        profile = profiled(network, shown(1))
        choice = StageChoice(network, profile)
        assert choice.held(choice.stages()) < 0.5 * profile.saved


def _alive(network: nn.Module, image: Tensor, stages: tuple[Stage, ...]) -> int:
    """Bytes of what autograd holds between forward and backward, beside parameters."""
    alive: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            alive[storage_key(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    leaf = image.clone().requires_grad_()
    with (
        Model(network).at_rest(),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept),
        staged(network, stages, recomputed(None)),
    ):
        output = network(leaf)
    output.sum().backward()
    assert leaf.grad is not None
    return sum(alive.values())


class TestRepeatable:
    def test_all_stages_of_a_chain(self) -> None:
        network, stages = chain(), (Stage("", (0, 3)), Stage("", (4, 8)))
        model, image = Model(network), shown()
        with untouched(network):
            assert repeatable(model, image, stages, None) == stages

    def test_no_stage_whose_input_is_written_to_later(self) -> None:
        """Even if its values stay: autograd would refuse it in the backward pass."""

        class Late(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.body = nn.Conv2d(4, 4, 1)

            def forward(self, values: Tensor) -> Tensor:
                values = values * 1
                found = self.body(values)
                values.mul_(1)
                return found

        assert repeatable(Model(Late().eval()), shown(), (Stage("body"),), None) == ()

    @pytest.mark.parametrize("devices", [None, []])
    def test_random_stages_need_the_state_of_the_generators(self, devices: Any) -> None:
        class Noise(nn.Module):
            def forward(self, values: Tensor) -> Tensor:
                return values + torch.rand_like(values)

        network = nn.Sequential(nn.Conv2d(4, 4, 1), Noise(), nn.Conv2d(4, 4, 1)).eval()
        stages = (Stage("0"), Stage("1"), Stage("2"))
        kept = repeatable(Model(network), shown(), stages, devices)
        assert kept == (stages if devices == [] else (stages[0], stages[2]))


def test_inputs_of_stages_are_moved_where_both_are_asked() -> None:
    """Nothing large stays on the device of the network."""
    network, image = chain(), shown(side=64).requires_grad_()
    expected = torch.autograd.grad(network(image).sum(), image)[0]
    with staged(network, (Stage("", (0, 4)), Stage("", (4, 8))), recomputed(None)):
        with saved_on_cpu(torch.device("cpu")):
            output = network(image)
        assert torch.equal(torch.autograd.grad(output.sum(), image)[0], expected)
