"""Forwards that are replaced in one thread, and what a network is afterwards."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import torch
from networks import untouched
from threads import in_thread
from torch import Tensor, nn

from voxplain.models.hooks import copy_network, replace_forward
from voxplain.models.rest import random_state, state_of


def times(factor: float) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return lambda forward: lambda values: forward(values) * factor


def own_forward(values: Tensor) -> Tensor:
    return values + 1


@pytest.fixture(params=[False, True])
def network(request: pytest.FixtureRequest) -> nn.Module:
    """Of which the layer has a forward as an attribute, or not."""
    found = nn.Sequential(nn.Identity())
    if request.param:
        found[0].forward = own_forward
    return found


def test_only_the_own_thread_sees_it(network: nn.Module) -> None:
    ones = torch.ones(1, 1)
    usual = network(ones)
    with untouched(network), ExitStack() as stack:
        replace_forward(stack, network[0], times(3))
        assert torch.equal(network(ones), 3 * usual)
        assert torch.equal(in_thread(lambda: network(ones)), usual)
    assert torch.equal(network(ones), usual)
    assert vars(network[0]).get("forward") in (None, own_forward)


def test_blocks_may_be_nested_and_overlap_in_any_order(network: nn.Module) -> None:
    ones, first, second = torch.ones(1, 1), ExitStack(), ExitStack()
    usual = network(ones)
    with untouched(network):
        replace_forward(first, network[0], times(3))
        with ExitStack() as inner:
            replace_forward(inner, network[0], times(5))
            assert torch.equal(network(ones), 15 * usual)

        def other() -> Tensor:
            replace_forward(second, network[0], times(7))
            found = network(ones)
            in_thread_of_first()
            second.close()
            return found

        def in_thread_of_first() -> None:
            assert torch.equal(in_thread(lambda: network(ones)), usual)

        assert torch.equal(in_thread(other), 7 * usual)
        assert torch.equal(network(ones), 3 * usual)
        first.close()


def test_copies_and_what_is_known_do_not_notice(network: nn.Module) -> None:
    before = state_of(network)
    ones = torch.ones(1, 1)
    usual = network(ones)
    with ExitStack() as stack:
        replace_forward(stack, network[0], times(3))
        assert state_of(network) == before
        copied = copy_network(network)
    assert torch.equal(copied(ones), usual)
    assert vars(copied[0]).get("forward") in (None, own_forward)


def test_random_generators_go_back() -> None:
    again = random_state([])
    first = torch.rand(3), np.random.rand(3)
    again()
    assert torch.equal(torch.rand(3), first[0])
    assert np.array_equal(np.random.rand(3), first[1])
