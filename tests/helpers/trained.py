"""A small classifier, trained within seconds: disks against rings, with irrelevant bars."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional

SIDE = 24


def shapes(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images ``(count, 1, 24, 24)`` and their classes: 1 is a disk, 0 a ring."""
    source = torch.Generator().manual_seed(seed)
    classes = torch.randint(0, 2, (count,), generator=source)
    middle = torch.rand(count, 2, 1, 1, generator=source) * (SIDE - 12) + 6
    along = torch.arange(float(SIDE))
    rows, columns = along[None, :, None] - middle[:, 0], along[None, None, :] - middle[:, 1]
    radius = (rows**2 + columns**2).sqrt()
    disk, ring = radius < 4, (radius > 3) & (radius < 5)
    shown = torch.where(classes.view(-1, 1, 1) == 1, disk, ring).float()
    place = torch.rand(count, 1, 1, generator=source) * SIDE
    bars = 0.7 * ((along[None, :, None] - place).abs() < 1).expand_as(shown).float()
    noise = torch.randn(count, SIDE, SIDE, generator=source)
    return (torch.maximum(shown, bars) + 0.1 * noise)[:, None], classes


@lru_cache(maxsize=3)
def trained(seed: int = 0, permuted: bool = False) -> nn.Sequential:
    """The network after a hundred steps: right on every image, unless its labels were permuted."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 2),
    )
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for step in range(100):
        batch, classes = shapes(64, step)
        classes = classes[torch.randperm(64)] if permuted else classes
        loss = functional.cross_entropy(network(batch), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval().requires_grad_(False)


def disks(count: int) -> Tensor:
    """Images of class 1 that were not trained on."""
    batch, classes = shapes(4 * count, 999)
    return batch[classes == 1][:count]
