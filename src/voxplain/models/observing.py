"""One forward that changes nothing: modes, buffers and random numbers are put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def observing(network: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; leaves modes, buffers and generators as they were."""
    modes = [(module, module.training) for module in network.modules()]
    buffers = _buffers(network)
    try:
        with torch.random.fork_rng(devices=_devices(network)), torch.no_grad():
            network.eval()
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        _put_back(buffers)


_Saved = tuple[nn.Module, str, Tensor, int, Tensor]


def _buffers(network: nn.Module) -> list[_Saved]:
    return [
        (module, name, buffer, buffer._version, buffer.detach().clone())
        for module in network.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and not buffer.is_inference()
    ]


@torch.no_grad()
def _put_back(buffers: list[_Saved]) -> None:
    """A buffer may have been written to, or another one put in its place."""
    for module, name, buffer, version, values in buffers:
        if buffer._version != version:
            buffer.copy_(values)
        if module._buffers.get(name) is not buffer:
            module._buffers[name] = buffer


def _devices(network: nn.Module) -> list[int]:
    tensors = [*network.parameters(), *network.buffers()]
    return sorted({tensor.device.index or 0 for tensor in tensors if tensor.is_cuda})
