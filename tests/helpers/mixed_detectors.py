"""Cases in which every channel mixes two concepts, so that directions are needed to tell them."""

from __future__ import annotations

import math

import torch
from planted import Pointwise
from torch import Tensor

from voxplain.concepts.bank import ConceptBank
from voxplain.engine.cohort import Cohort, CohortCase
from voxplain.grid import Grid
from voxplain.image import Image

SIDES = {2: (28, 26), 3: (14, 13, 12)}
ROTATION = torch.tensor([[1.0, 1.0], [1.0, -1.0]]) / math.sqrt(2)
"""Two detectors turned by 45 degrees: the first channel is their sum, the second the difference."""
SUMS = torch.tensor([[1.0, 0.7], [0.7, 1.0], [0.9, 0.9], [0.8, 0.6]])
"""Channels that are non-negative sums of both detectors."""


def mixed_cohort(mixing: Tensor, rank: int = 2, cases: int = 20, seed: int = 0) -> Cohort:
    """Two boxes at independent places; label 1 is the first, 2 the second, 3 where they overlap.

    Each detector is between 0.5 and 1.5 inside of its box and 0 elsewhere; images show ``mixing``
    ``(channels, 2)`` times both, with little noise.
    """
    shape, found = SIDES[rank], []
    source = torch.Generator().manual_seed(seed)
    for number in range(cases):
        boxes = torch.stack([_box(shape, source) for _ in range(2)])
        detectors = boxes * (0.5 + torch.rand(boxes.shape, generator=source))
        noise = 0.01 * torch.rand(len(mixing), *shape, generator=source)
        data = torch.einsum("kd,d...->k...", mixing, detectors) + noise
        labels = (boxes[0] + 2 * boxes[1]).long()
        name = f"case{number}"
        found.append(CohortCase(name, name, Image(data, Grid.default(shape)), labels))
    return Cohort.of(found)


def _box(shape: tuple[int, ...], source: torch.Generator) -> Tensor:
    mask = torch.zeros(shape)
    sides = [size // 2 for size in shape]
    starts = [
        int(torch.randint(0, size - side, (1,), generator=source))
        for size, side in zip(shape, sides, strict=True)
    ]
    mask[tuple(slice(at, at + side) for at, side in zip(starts, sides, strict=True))] = 1
    return mask


def two_concepts() -> ConceptBank:
    """Both boxes."""
    return ConceptBank.of([{"kind": "labels", "names": {"first": (1, 3), "second": (2, 3)}}])


def reader(channels: int, rank: int) -> Pointwise:
    """The image as ``layer``; class 1 is along the first detector of :data:`ROTATION`."""
    head = torch.zeros(2, channels)
    head[1, :2] = 1
    return Pointwise(head, rank, dense=True).eval()
