"""How many masked images go through the network at once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from voxplain.engine.memory import ForwardBudget

CPU = torch.device("cpu")
MIB = 2**20


def _size_after(image: Tensor, network: nn.Module, limit: int | None = None) -> int:
    budget = ForwardBudget(CPU, limit)
    assert budget.size == 2  # torch convolves small volumes slowly alone
    with torch.inference_mode(), budget.measured(len(image)):
        network(image)
    with budget.measured(1):
        network(image[:1])  # only the first forward is measured
    return budget.size


class Widening(nn.Module):
    """Its largest tensor is an intermediate result of functional calls."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.cat([image] * 4, dim=1).relu().mean(dim=(1, 2))


@pytest.mark.parametrize(
    ("side", "images", "expected"),
    [
        (64, 1, 128),  # 64 KiB per image: 8 MiB in all
        (64, 2, 128),  # whatever the size of the first batch
        (256, 1, 8),
        (1024, 1, 2),  # never one by one where memory allows two
        (8, 1, 256),  # the most
    ],
)
def test_batches_stay_in_the_caches(side: int, images: int, expected: int) -> None:
    assert _size_after(torch.rand(images, 1, side, side), Widening()) == expected


@pytest.mark.parametrize(
    ("limit", "expected"), [(256 * 2**10, 1), (32 * MIB, 8), (MIB, 1), (9 * MIB, 2)]
)
def test_batches_stay_below_the_limit(limit: int, expected: int) -> None:
    """A quarter of the limit, since several activations live at once."""
    assert _size_after(torch.rand(1, 1, 256, 256), Widening(), limit) == expected


def test_halving_ends_at_single_images() -> None:
    budget = ForwardBudget(CPU)
    budget.size = 5
    sizes = []
    while budget.halve():
        sizes.append(budget.size)
    assert sizes == [2, 1]
