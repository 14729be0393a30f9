"""Images and networks that leave out nothing which is usual in patients and rare in tests.

Zero background with small structures, odd sizes that differ along the axes, anisotropic spacing,
values in [-1, 1] with ties, four classes, and nine references.
"""

from __future__ import annotations

import torch
from networks import convolution
from torch import Tensor, nn

SHAPES = {2: (7, 11), 3: (5, 7, 11)}
SPACINGS = {2: (0.5, 1.25), 3: (4.0, 0.5, 1.25)}
CHANNELS, CLASSES = 2, 4


def harsh_images(rank: int, batch: int = 1) -> Tensor:
    """``(B, 2, *SHAPES[rank])`` in [-1, 1]: small structures of few values on a background of 0."""
    shape = SHAPES[rank]
    source = torch.Generator().manual_seed(3)
    images = torch.zeros(batch, CHANNELS, *shape)
    for image in images:
        for channel in image:
            corner = [int(torch.randint(side - 3, (), generator=source)) for side in shape]
            box = tuple(slice(start, start + 3) for start in corner)
            levels = torch.randint(-2, 3, (3,) * rank, generator=source) / 2
            channel[box] = levels
            lone = tuple(int(torch.randint(side, (), generator=source)) for side in shape)
            channel[lone] = 1.0
    return images


def harsh_references(rank: int, count: int = 9) -> Tensor:
    """Other images like those of :func:`harsh_images`."""
    return harsh_images(rank, count + 4)[4:]


def harsh_classifier(rank: int) -> nn.Sequential:
    """conv1 act1 conv2 act2 pool flat head: scores ``(B, 4)`` for images of any size."""
    torch.manual_seed(20 + rank)
    conv = convolution(rank)
    network = nn.Sequential()
    network.add_module("conv1", conv(CHANNELS, 5, 3, padding=1))
    network.add_module("act1", nn.ReLU())
    network.add_module("conv2", conv(5, 6, 3, padding=1))
    network.add_module("act2", nn.ReLU())
    network.add_module("pool", getattr(nn, f"AdaptiveAvgPool{rank}d")(1))
    network.add_module("flat", nn.Flatten())
    network.add_module("head", nn.Linear(6, CLASSES))
    return network.double().eval()


def harsh_segmenter(rank: int) -> nn.Sequential:
    """conv1 act1 conv2 act2 head: ``(B, 4, *spatial)``, where each class is predicted somewhere."""
    torch.manual_seed(20 + rank)
    conv = convolution(rank)
    network = nn.Sequential()
    network.add_module("conv1", conv(CHANNELS, 5, 3, padding=1))
    network.add_module("act1", nn.ReLU())
    network.add_module("conv2", conv(5, 6, 3, padding=1))
    network.add_module("act2", nn.ReLU())
    head = conv(6, CLASSES, 1)
    network.add_module("head", head)
    with torch.no_grad():
        values = network(harsh_images(rank, 4)).transpose(0, 1).flatten(1)
        head.bias -= values.quantile(0.75, dim=1)
    return network.double().eval()
