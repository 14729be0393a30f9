"""A network that stands for those of ``dynamic_network_architectures``, which is not installed."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

PACKAGE = "dynamic_network_architectures"
MODULE = f"{PACKAGE}.architectures.unet"


class PlainConvUNet(nn.Module):
    """One stage down and up, of the layers that plans name."""

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        features_per_stage: Sequence[int],
        conv_op: type[nn.Module],
        kernel_sizes: Sequence[Sequence[int]],
        strides: Sequence[Sequence[int]],
        norm_op: type[nn.Module],
        norm_op_kwargs: Mapping[str, Any],
        nonlin: type[nn.Module],
        nonlin_kwargs: Mapping[str, Any],
        conv_bias: bool,
        deep_supervision: bool,
        n_stages: int,
        n_conv_per_stage: Sequence[int],
        n_conv_per_stage_decoder: Sequence[int],
        dropout_op: None = None,
        dropout_op_kwargs: None = None,
    ) -> None:
        assert not deep_supervision
        assert n_stages == 2
        super().__init__()
        first, second = features_per_stage
        halves = [size // 2 for size in kernel_sizes[0]]
        self.first = conv_op(input_channels, first, kernel_sizes[0], padding=halves)
        self.norm = norm_op(first, **norm_op_kwargs)
        self.nonlin = nonlin(**nonlin_kwargs)
        self.down = conv_op(
            first, second, kernel_sizes[1], stride=strides[1], padding=halves, bias=conv_bias
        )
        transposed = nn.ConvTranspose3d if conv_op is nn.Conv3d else nn.ConvTranspose2d
        self.up = transposed(second, first, strides[1], stride=strides[1])
        self.last = conv_op(2 * first, num_classes, [1] * len(halves))

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits ``(B, num_classes, *spatial)``."""
        skip = self.nonlin(self.norm(self.first(inputs)))
        return self.last(torch.cat([self.up(self.nonlin(self.down(skip))), skip], dim=1))


PlainConvUNet.__module__ = MODULE


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts the network where plans of nnU-Net name it."""
    parts = MODULE.split(".")
    for count in range(1, len(parts) + 1):
        name = ".".join(parts[:count])
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(sys.modules[MODULE], "PlainConvUNet", PlainConvUNet, raising=False)


def built(architecture: Mapping[str, Any], inputs: int, outputs: int, seed: int) -> PlainConvUNet:
    """The network of an architecture, with random weights."""
    torch.manual_seed(seed)
    arguments = dict(architecture["arch_kwargs"])
    for key in architecture["_kw_requires_import"]:
        if arguments[key] is not None:
            arguments[key] = getattr(nn, arguments[key].rsplit(".", 1)[-1])
    return PlainConvUNet(inputs, outputs, deep_supervision=False, **arguments).eval()
