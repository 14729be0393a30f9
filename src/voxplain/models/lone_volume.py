"""Lone small volumes, of which torch computes two faster than one."""

from __future__ import annotations

import torch
from torch import Tensor

_VOLUME, _SMALL_VOLUME = 5, 50**3


def lone_volume_is_slow(inputs: Tensor) -> bool:
    """Whether an input takes longer alone than twice: a small float32 volume on a CPU.

    torch convolves ``B * C * D * H <= 20480`` cells of a lone volume without oneDNN, which takes
    four times as long as with it; from two volumes on it always uses oneDNN.

    Args:
        inputs: ``(B, C, *spatial)``.
    """
    lone = len(inputs) == 1 and inputs.ndim == _VOLUME
    small = inputs[0, 0].numel() <= _SMALL_VOLUME if lone else False
    return small and inputs.device.type == "cpu" and inputs.dtype is torch.float32


def with_companion(inputs: Tensor) -> Tensor:
    """The inputs ``(B, C, *spatial)``; a copy beside a volume that is slow alone."""
    return torch.cat([inputs, inputs]) if lone_volume_is_slow(inputs) else inputs
