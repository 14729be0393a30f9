"""Cases with two binary channels and known concepts, and networks that detect them exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from voxplain.concepts.bank import ConceptBank
from voxplain.engine.cohort import Cohort, CohortCase
from voxplain.grid import Grid
from voxplain.image import Image

SIDES = (20, 18, 12)
BOTH = {"kind": "labels", "names": {"both": 3, "first": (1, 3), "second": (2, 3)}}
"""Label 1 where the first channel is bright, 2 where the second is, 3 where both are."""


def blob(generator: np.random.Generator, shape: tuple[int, ...], side: int = 8) -> Tensor:
    """A box of ones at a random place, along axes that have more than one voxel."""
    mask = torch.zeros(shape)
    starts = [int(generator.integers(0, max(1, size - side))) for size in shape]
    mask[tuple(slice(start, start + side) for start in starts)] = 1
    return mask


def a_case(number: int, shape: tuple[int, ...], **facts: Any) -> CohortCase:
    """Two overlapping boxes, and the labels of them."""
    generator = np.random.default_rng(number)
    first = blob(generator, shape)
    second = torch.maximum(blob(generator, shape), torch.roll(first, 3, dims=0))
    image = Image(torch.stack([first, second]), Grid.default(shape, 2.0), ("first", "second"))
    labels = (first + 2 * second).long()
    return CohortCase(f"case{number}", f"patient{number}", image, labels, facts)


def boxes(count: int = 20, rank: int = 2) -> Cohort:
    """Cases of as many patients."""
    return Cohort.of([a_case(number, SIDES[:rank]) for number in range(count)])


def bank(*entries: dict[str, Any]) -> ConceptBank:
    """The concepts of the boxes, and others."""
    return ConceptBank.of([BOTH, *entries])


class Planted(nn.Module):
    """Unit 0 is on where both channels are bright, 1 is dead, 2 is the first channel."""

    def __init__(self, rank: int = 2, kernel: tuple[int, ...] | int = 1) -> None:
        super().__init__()
        convolution = (nn.Conv2d, nn.Conv3d)[rank - 2]
        self.stage = convolution(2, 3, kernel)
        self.act = nn.ReLU()
        self.head = convolution(3, 2, 1)
        with torch.no_grad():
            self.stage.weight.zero_()
            self.stage.bias.zero_()
            self.stage.weight[0] = 1
            self.stage.bias[0] = -1
            self.stage.weight[2, 0] = 1

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.act(self.stage(image)))
