"""Networks that come with voxplain: a small U-Net for images with 1, 2 or 3 axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxplain.errors import ConfigError, ModelError, nearest

Norm = Literal["none", "batch", "instance"]
Pool = Literal["average", "max"]

_CONVOLUTIONS: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_POOLS: dict[str, dict[int, Callable[..., Tensor]]] = {
    "average": {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d},
    "max": {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d},
}
_NORMS: dict[str, dict[int, type[nn.Module]]] = {
    "none": {},
    "batch": {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d},
    "instance": {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d},
}
_INTERPOLATIONS = {1: "linear", 2: "bilinear", 3: "trilinear"}


def unet(
    rank: int,
    in_channels: int = 1,
    classes: int = 4,
    widths: Sequence[int] = (8, 16, 32),
    *,
    norm: Norm = "none",
    pool: Pool = "average",
) -> UNet:
    """A U-Net with untrained, He-initialized weights.

    Args:
        rank: Number of spatial axes: 1, 2 or 3.
        in_channels: Image channels, such as 4 MRI modalities.
        classes: Output channels; 1 for a one-logit (sigmoid) segmenter.
        widths: Feature channels per resolution, the bottleneck last.
        norm: Normalization after each convolution.
        pool: How the encoder halves the resolution. An average distributes the gradient evenly
            over the voxels of a cell, a maximum gives it to one of them.

    Returns:
        A network from ``(B, in_channels, *spatial)`` to logits ``(B, classes, *spatial)``, with
        the modules ``enc1, enc2, …, bottleneck, …, dec2, dec1, head``.

    Raises:
        ConfigError: If an argument is out of range.
    """
    return UNet(rank, in_channels, classes, tuple(widths), norm=norm, pool=pool)


def unet2d(
    in_channels: int = 1,
    classes: int = 4,
    widths: Sequence[int] = (8, 16, 32),
    *,
    norm: Norm = "none",
    pool: Pool = "average",
) -> UNet:
    """A U-Net for images; see :func:`unet`."""
    return unet(2, in_channels, classes, widths, norm=norm, pool=pool)


def unet3d(
    in_channels: int = 1,
    classes: int = 4,
    widths: Sequence[int] = (8, 16, 32),
    *,
    norm: Norm = "none",
    pool: Pool = "average",
) -> UNet:
    """A U-Net for volumes; its defaults fit the weights of the demo. See :func:`unet`."""
    return unet(3, in_channels, classes, widths, norm=norm, pool=pool)


class UNet(nn.Module):
    """Encoder and decoder with skip connections, for any spatial shape, even one-slice volumes.

    Pooling rounds up and the decoder crops the surplus of upsampling, so that cell ``i`` of a
    coarser level always covers cells ``2i`` and ``2i + 1`` of the finer one. Upsampling is linear
    interpolation, which causes no checkerboard in gradients.

    Paper:
        Ronneberger et al. 2015, U-Net; Çiçek et al. 2016, 3D U-Net.
    """

    def __init__(
        self,
        rank: int,
        in_channels: int,
        classes: int,
        widths: tuple[int, ...],
        *,
        norm: Norm = "none",
        pool: Pool = "average",
    ) -> None:
        super().__init__()
        _check(rank, in_channels, classes, widths, norm, pool)
        self.rank = rank
        self.in_channels = in_channels
        self.depth = len(widths) - 1
        sources = (in_channels, *widths)
        for level in range(1, self.depth + 1):
            self.add_module(
                f"enc{level}", _Block(rank, sources[level - 1], widths[level - 1], norm)
            )
            self.add_module(f"pool{level}", _Halve(rank, pool))
        self.bottleneck = _Block(rank, widths[-2], widths[-1], norm)
        for level in range(self.depth, 0, -1):
            skip = widths[level - 1]
            self.add_module(f"dec{level}", _Decoder(rank, widths[level], skip, norm))
        self.head = _CONVOLUTIONS[rank](widths[0], classes, 1)
        self.apply(_initialize)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(B, classes, *spatial)`` of images ``(B, in_channels, *spatial)``.

        Raises:
            ModelError: If the number of axes or of channels does not fit the network.
        """
        if x.dim() != self.rank + 2 or x.shape[1] != self.in_channels:
            raise ModelError(
                f"this {self.rank}-D U-Net takes (B, {self.in_channels}, *spatial) with "
                f"{self.rank} spatial axes, not an input of shape {tuple(x.shape)}"
            )
        skips = []
        for level in range(1, self.depth + 1):
            x = self.get_submodule(f"enc{level}")(x)
            skips.append(x)
            x = self.get_submodule(f"pool{level}")(x)
        x = self.bottleneck(x)
        for level in range(self.depth, 0, -1):
            x = self.get_submodule(f"dec{level}")(x, skips.pop())
        logits: Tensor = self.head(x)
        return logits


class _Block(nn.Sequential):
    """Two convolutions, each followed by a norm (if any) and a rectifier."""

    def __init__(self, rank: int, sources: int, width: int, norm: Norm) -> None:
        super().__init__()
        for step, channels in enumerate((sources, width), start=1):
            self.add_module(f"conv{step}", _CONVOLUTIONS[rank](channels, width, 3, padding=1))
            if norm != "none":
                # Batch norm is affine by default; instance norm is not.
                self.add_module(f"norm{step}", _NORMS[norm][rank](width, affine=True))
            self.add_module(f"relu{step}", nn.ReLU())


class _Halve(nn.Module):
    """Pools pairs of voxels along each axis; an axis of one voxel stays as it is."""

    def __init__(self, rank: int, pool: Pool) -> None:
        super().__init__()
        self.rank = rank
        self.pool = pool  # by name: torch's pooling functions cannot be pickled

    def forward(self, x: Tensor) -> Tensor:
        """Features ``(B, C, *spatial)`` at half the resolution, rounded up."""
        pairs = [min(2, size) for size in x.shape[2:]]
        return _POOLS[self.pool][self.rank](x, pairs, pairs, ceil_mode=True)


class _Decoder(nn.Module):
    """Upsamples coarse features to the grid of the skip connection and joins both."""

    def __init__(self, rank: int, sources: int, width: int, norm: Norm) -> None:
        super().__init__()
        self.interpolation = _INTERPOLATIONS[rank]
        # Fewer channels before upsampling cost an eighth of fewer channels after it.
        self.narrow = _CONVOLUTIONS[rank](sources, width, 1)
        self.block = _Block(rank, 2 * width, width, norm)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Features ``(B, width, *spatial)`` on the grid of ``skip``."""
        x = functional.interpolate(
            self.narrow(x), scale_factor=2, mode=self.interpolation, align_corners=False
        )
        for axis, size in enumerate(skip.shape[2:], start=2):
            if x.shape[axis] > size:
                x = x.narrow(axis, 0, size)
        joined: Tensor = self.block(torch.cat([x, skip], dim=1))
        return joined


def _initialize(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _check(
    rank: int, in_channels: int, classes: int, widths: tuple[int, ...], norm: str, pool: str
) -> None:
    if rank not in _CONVOLUTIONS:
        raise ConfigError(f"a U-Net has 1, 2 or 3 spatial axes, not {rank}")
    if len(widths) < 2:
        raise ConfigError(f"widths needs a level and a bottleneck at least, not {list(widths)}")
    if min(in_channels, classes, *widths) < 1:
        raise ConfigError(
            f"channel counts start at 1: in_channels={in_channels}, classes={classes}, "
            f"widths={list(widths)}"
        )
    for kind, name, known in (("norm", norm, _NORMS), ("pool", pool, _POOLS)):
        if name not in known:
            raise ConfigError(f"{name!r} is no {kind} of the U-Net; {nearest(name, known)}")
