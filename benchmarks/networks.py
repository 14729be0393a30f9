"""Networks and scores that both sides are given, with every ReLU a module that is used once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from voxplain.zoo import unet3d

PIXELWISE = {"kind": "pixelwise", "label": 1}
"""The target of :class:`PredictedSum` in voxplain's words."""

_CONVOLUTIONS = {2: nn.Conv2d, 3: nn.Conv3d}
_NORMS = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_POOLS = {2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}


class ResNet(nn.Module):
    """A residual classifier of 17 convolutions for any rank, as ResNet-18 without reused ReLUs."""

    def __init__(self, rank: int, channels: int = 1, classes: int = 3, width: int = 16) -> None:
        super().__init__()
        convolution, norm = _CONVOLUTIONS[rank], _NORMS[rank]
        self.stem = nn.Sequential(
            convolution(channels, width, 7, 2, 3, bias=False), norm(width), nn.ReLU()
        )
        blocks = []
        for level in range(4):
            sources = width * 2 ** max(0, level - 1)
            blocks.append(_Block(rank, sources, width * 2**level, 1 if level == 0 else 2))
            blocks.append(_Block(rank, width * 2**level, width * 2**level, 1))
        self.blocks = nn.Sequential(*blocks)
        self.pool = _POOLS[rank](1)
        self.head = nn.Linear(width * 8, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.blocks(self.stem(x))).flatten(1))


class _Block(nn.Module):
    def __init__(self, rank: int, sources: int, width: int, stride: int) -> None:
        super().__init__()
        convolution, norm = _CONVOLUTIONS[rank], _NORMS[rank]
        self.first = nn.Sequential(
            convolution(sources, width, 3, stride, 1, bias=False), norm(width), nn.ReLU()
        )
        self.second = nn.Sequential(convolution(width, width, 3, 1, 1, bias=False), norm(width))
        self.shortcut = nn.Sequential()
        if sources != width or stride != 1:
            self.shortcut = nn.Sequential(
                convolution(sources, width, 1, stride, bias=False), norm(width)
            )
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.second(self.first(x)) + self.shortcut(x))


class PredictedSum(nn.Module):
    """The logits of a class summed over the region that was predicted on the unperturbed image.

    This is the wrapper that captum's tutorial on segmentation recommends; voxplain's pixel-wise
    target is the same number.
    """

    def __init__(self, network: nn.Module, image: Tensor, label: int) -> None:
        super().__init__()
        self.network, self.label = network, label
        with torch.no_grad():
            self.register_buffer("mask", network(image).argmax(dim=1) == label)

    def forward(self, x: Tensor) -> Tensor:
        return self.score(self.network(x))

    def score(self, output: Tensor) -> Tensor:
        """S of an output ``(B, K, *spatial)``."""
        return (output[:, self.label] * self.mask).flatten(1).sum(dim=1)


def segmenter(size: int, channels: int = 1) -> tuple[nn.Module, Tensor, PredictedSum]:
    """A 3-D U-Net, an image, and the score for peers."""
    torch.manual_seed(0)
    network = unet3d(channels, 3).eval()
    image = torch.randn(1, channels, size, size, size)
    return network, image, PredictedSum(network, image, 1)


def classifier(rank: int, size: int, batch: int = 1) -> tuple[nn.Module, Tensor]:
    """A residual network with settled statistics, and images."""
    torch.manual_seed(0)
    network = ResNet(rank)
    images = torch.randn(batch, 1, *(size,) * rank)
    network(torch.randn(4, 1, *(size,) * rank))
    return network.eval(), images
