"""Several blocks, nested or in several threads, leave one network as the first one found it."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest
import torch
from networks import classifier, images, untouched
from threads import in_thread, in_threads
from torch import Tensor, nn

from voxplain.models.copies import copied
from voxplain.models.hooks import add_hook, copy_network
from voxplain.models.model import Model
from voxplain.models.rest import at_rest, observing, random_state_kept


def mixed_network() -> nn.Sequential:
    """A network whose layers differ in mode and in requires_grad."""
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout()).train()
    network[1].eval()
    network[0].bias.requires_grad_(False)
    return network


def is_at_rest(network: nn.Module) -> bool:
    training = any(module.training for module in network.modules())
    return not training and not any(parameter.requires_grad for parameter in network.parameters())


def test_the_first_block_to_be_entered_may_be_left_first() -> None:
    network = mixed_network()
    with untouched(network):
        first, second = ExitStack(), ExitStack()
        first.enter_context(at_rest(network))
        in_thread(lambda: second.enter_context(at_rest(network)))
        first.close()
        assert is_at_rest(network)
        second.close()


def test_nested_blocks_restore_when_the_outermost_is_left() -> None:
    network = mixed_network()
    with untouched(network), at_rest(network):
        with at_rest(network), observing(network):
            assert is_at_rest(network)
        assert is_at_rest(network)


def test_an_error_inside_does_not_leave_a_block_counted() -> None:
    network = mixed_network()
    for _ in range(2):
        with untouched(network), pytest.raises(ZeroDivisionError), at_rest(network):
            raise ZeroDivisionError
    network.eval()
    with untouched(network), at_rest(network):
        assert is_at_rest(network)


def test_modes_that_change_between_blocks_are_those_that_are_restored() -> None:
    network = mixed_network()
    with at_rest(network):
        pass
    network.eval()
    network[0].bias.requires_grad_(True)
    with untouched(network), at_rest(network):
        pass
    network.train()
    with untouched(network), at_rest(network):
        pass


def test_copies_that_share_parameters_share_their_flags() -> None:
    network = mixed_network()
    other = copied(Model(network), own=["1"])
    assert other.network[0].weight is network[0].weight
    with untouched(network), untouched(other.network):
        first, second = ExitStack(), ExitStack()
        first.enter_context(at_rest(network))
        second.enter_context(other.at_rest())
        first.close()
        assert not network[0].weight.requires_grad, "the copy is still explained"
        assert network[1].weight.requires_grad
        second.close()


class Counting(nn.Module):
    """A network that counts its calls in one buffer, replaces another one and draws a number."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("last", torch.zeros(()))

    def forward(self, image: Tensor) -> Tensor:
        self.calls += 1
        self.last = image.mean()
        return image + torch.rand(())


def test_observing_puts_buffers_and_generators_back() -> None:
    network, shown = Counting(), images()
    with untouched(network), observing(network):
        network(shown)
        assert network.calls == 1


def test_observers_of_several_threads_all_see_the_network_as_it_was() -> None:
    network, shown, counts = Counting(), images(), list[float]()

    def observe() -> None:
        with observing(network):
            network(shown)
            time.sleep(0.005)
            counts.append(float(network.calls))

    with untouched(network):
        in_threads([observe] * 4)
    assert counts == [1, 1, 1, 1]


def test_seeded_draws_are_not_disturbed_by_another_block() -> None:
    def draws() -> list[float]:
        with random_state_kept(()):
            torch.manual_seed(0)
            return [float((torch.rand(()), time.sleep(0.001))[0]) for _ in range(20)]

    alone = draws()
    assert in_threads([draws, draws]) == [alone, alone]


class TestHooks:
    def test_a_hook_acts_in_its_own_thread_alone(self) -> None:
        network, shown = classifier(), images()
        plain, calls = network(shown), []
        with untouched(network), ExitStack() as stack:
            add_hook(stack, network.act1.register_forward_hook, lambda *_: calls.append(1))
            add_hook(stack, network.act2.register_forward_pre_hook, lambda _, given: given[0] * 0)
            assert not torch.equal(network(shown), plain)
            assert calls == [1]
            assert torch.equal(in_thread(lambda: network(shown)), plain)
            assert calls == [1]

    def test_copies_have_no_hooks_of_open_blocks(self) -> None:
        network, shown = classifier(), images()
        network.conv2.register_forward_hook(_doubled)
        plain = network(shown)
        with ExitStack() as stack:
            value = torch.ones(1, requires_grad=True) * 2  # no leaf: it cannot be copied
            add_hook(stack, network.conv1.register_forward_hook, lambda *_: value, with_kwargs=True)
            add_hook(stack, network.act1.register_forward_pre_hook, lambda *_: 0 * value)
            duplicate = copy_network(network)
        assert torch.equal(duplicate(shown), plain), "hooks of the user stay"
        assert not duplicate.conv1._forward_hooks
        assert not duplicate.conv1._forward_hooks_with_kwargs
        assert not duplicate.act1._forward_pre_hooks
        assert duplicate.conv1.weight is not network.conv1.weight


def _doubled(_: nn.Module, __: object, output: Tensor) -> Tensor:
    return 2 * output


def test_a_copy_in_float64_is_made_once() -> None:
    made: list[int] = []

    class Slow(nn.Linear):
        def __deepcopy__(self, _: object) -> nn.Linear:
            made.append(1)
            time.sleep(0.02)
            return nn.Linear(2, 2)

    model = Model(nn.Sequential(Slow(2, 2)))
    doubles = in_threads([model.in_double] * 3)
    assert made == [1]
    assert len({id(double.network) for double in doubles}) == 1
    assert doubles[0].dtype is torch.float64
