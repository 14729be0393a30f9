"""Networks with known circuits, and cohorts of noise, for links and trails."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from voxplain.concepts.links.nodes import ConceptUnits
from voxplain.engine.cohort import Cohort, CohortCase
from voxplain.engine.interventions import UnitSet
from voxplain.engine.taps import Tap
from voxplain.grid import Grid
from voxplain.image import Image

SHAPES = {2: (10, 9), 3: (6, 5, 4)}
FIRST, SECOND = Tap("a"), Tap("b")
LEAK = 0.01


def convolution(rank: int, inputs: int, outputs: int) -> nn.Module:
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
    return kind(inputs, outputs, 1, bias=False)


def with_weights(layer: nn.Module, weights: Tensor, rank: int) -> nn.Module:
    with torch.no_grad():
        layer.weight.copy_(weights.view(*weights.shape, *(1,) * rank))
    return layer


class TwoHalves(nn.Module):
    """Layer A of 8 units in two halves, layer B of 6 + 2 channels; A1 -> B1, A2 -> B2, and a leak.

    The output has two classes, the sums of B1 and of B2.
    """

    def __init__(self, rank: int, leak: float = LEAK) -> None:
        super().__init__()
        weights = torch.full((8, 8), leak)
        weights[:6, :4] = weights[6:, 4:] = 1
        weights *= 0.5 + torch.rand(8, 8, generator=torch.Generator().manual_seed(3))
        heads = torch.tensor([[1.0] * 6 + [0.0] * 2, [0.0] * 6 + [1.0] * 2])
        self.a = with_weights(convolution(rank, 8, 8), torch.eye(8), rank)
        self.b = with_weights(convolution(rank, 8, 8), weights, rank)
        self.head = with_weights(convolution(rank, 8, 2), heads, rank)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.b(self.a(image)))


HALVES = (
    ConceptUnits("A1", FIRST, UnitSet((0, 1, 2, 3))),
    ConceptUnits("A2", FIRST, UnitSet((4, 5, 6, 7))),
    ConceptUnits("B1", SECOND, UnitSet((0, 1, 2, 3, 4, 5))),
    ConceptUnits("B2", SECOND, UnitSet((6, 7))),
)


def noise_cohort(
    rank: int = 2, cases: int = 10, channels: int = 8, shape: tuple[int, ...] = (), seed: int = 0
) -> Cohort:
    """Cases of independent noise in every channel, each with labels 1 and 2 in two halves."""
    shape = shape or SHAPES[rank]
    source = torch.Generator().manual_seed(seed)
    found = []
    for number in range(cases):
        data = torch.randn(channels, *shape, generator=source)
        labels = torch.ones(shape, dtype=torch.long)
        labels[shape[0] // 2 :] = 2
        image = Image(data, Grid.default(shape))
        found.append(CohortCase(f"case{number}", f"patient{number}", image, labels))
    return Cohort.of(found)


def state_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def is_untouched(network: nn.Module, before: dict[str, Tensor]) -> bool:
    """Whether weights are bit-identical, and nothing hangs on the modules."""
    same = all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    hooks = any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    replaced = any("forward" in module.__dict__ for module in network.modules())
    return same and not hooks and not replaced


class Chain(nn.Module):
    """Three layers of 8 units, each fed by the unit before it; class 1 is the sum of some units.

    Args:
        rank: Of the images.
        read: The units of the last layer that class 1 reads.
    """

    def __init__(self, rank: int, read: tuple[int, ...] = (0,)) -> None:
        super().__init__()
        head = torch.zeros(2, 8)
        head[1, list(read)] = 1
        for name in "abc":
            self.add_module(name, with_weights(convolution(rank, 8, 8), torch.eye(8), rank))
        self.head = with_weights(convolution(rank, 8, 2), head, rank)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.c(self.b(self.a(image)))) - 0.5 * torch.eye(2)[1].view(
            1, 2, *(1,) * (image.ndim - 2)
        )


def blob_cohort(rank: int = 2, cases: int = 10, channels: int = 8) -> Cohort:
    """Cases with a bright box in every channel, at a place of its own in every case and channel.

    Label 1 is the box of channel 0.
    """
    shape = tuple(2 * size for size in SHAPES[rank])
    source = torch.Generator().manual_seed(1)
    found = []
    for number in range(cases):
        data = torch.zeros(channels, *shape)
        for channel in range(channels):
            starts = [int(torch.randint(0, size - 3, (1,), generator=source)) for size in shape]
            data[(channel, *(slice(start, start + 3) for start in starts))] = 1
        image = Image(data, Grid.default(shape))
        labels = (data[0] > 0).long()
        found.append(CohortCase(f"case{number}", f"patient{number}", image, labels))
    return Cohort.of(found)


def units_of(layer: str, *channels: int) -> tuple[ConceptUnits, ...]:
    """A node for each of some channels of a layer."""
    return tuple(ConceptUnits(f"{layer}{k}", Tap(layer), UnitSet((k,))) for k in channels)


class Skipped(nn.Module):
    """Layer ``a`` reaches layer ``c`` over a skip connection; the trunk ``b`` in between adds
    some share of itself.

    Args:
        rank: Of the images.
        trunk: The factor of the trunk.
    """

    def __init__(self, rank: int, trunk: float = 0.0) -> None:
        super().__init__()
        self.a = with_weights(convolution(rank, 4, 4), torch.eye(4), rank)
        self.b = with_weights(convolution(rank, 4, 4), torch.eye(4), rank)
        self.c = with_weights(convolution(rank, 4, 4), torch.eye(4), rank)
        self.trunk = trunk

    def forward(self, image: Tensor) -> Tensor:
        skip = self.a(image)
        return self.c(skip + self.trunk * self.b(skip))
