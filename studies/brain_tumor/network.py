"""The two networks of the study: a U-Net, and one without skip connections (after SimUnet)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxplain.zoo import UNet
from voxplain.zoo import unet2d as zoo_unet2d

MODALITIES = ("flair", "t1", "t1ce", "t2")
CLASSES = ("background", "NCR", "ED", "ET")


def unet2d(widths: Sequence[int] = (16, 32, 64, 96)) -> UNet:
    """A 2-D U-Net from four modalities to four classes, untrained."""
    return zoo_unet2d(len(MODALITIES), len(CLASSES), widths, norm="batch", pool="max")


def simunet(widths: Sequence[int] = (32, 48, 64, 96)) -> SimUNet:
    """A 2-D encoder and decoder without skip connections, untrained."""
    return SimUNet(widths)


class SimUNet(nn.Module):
    """Every path from the image to the classes goes through every stage.

    Args:
        widths: Channels per resolution, the coarsest last.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        sources = (len(MODALITIES), *widths)
        for level, width in enumerate(widths):
            self.add_module(f"down{level}", _stage(sources[level], width))
        for level in range(len(widths) - 2, -1, -1):
            self.add_module(f"up{level}", _stage(widths[level + 1], widths[level]))
        self.head = nn.Conv2d(widths[0], len(CLASSES), 1)
        self.levels = len(widths)

    def forward(self, image: Tensor) -> Tensor:
        """Logits ``(B, 4, X, Y)`` of images ``(B, 4, X, Y)``."""
        sizes, value = [], image
        for level in range(self.levels):
            if level:
                sizes.append(value.shape[2:])
                value = functional.max_pool2d(value, 2, ceil_mode=True)
            value = self.get_submodule(f"down{level}")(value)
        for level in range(self.levels - 2, -1, -1):
            value = functional.interpolate(
                value, scale_factor=2, mode="bilinear", align_corners=False
            )
            width, height = sizes.pop()
            value = self.get_submodule(f"up{level}")(value[:, :, :width, :height])
        logits: Tensor = self.head(value)
        return logits


def _stage(sources: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (sources, width):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers)


def randomized(network: nn.Module, seed: int = 1) -> nn.Module:
    """The network with fresh weights; its norms keep their statistics."""
    torch.manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.reset_parameters()
    return network
