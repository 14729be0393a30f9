"""Networks at rest: evaluation mode without parameter gradients, for several threads at once.

Modes and flags belong to a network and not to a thread. The first block that needs one changed
saves it, and the last block to be left puts it back, in whichever thread. Blocks are counted per
module and per parameter, because copies of a network may share parameters with it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_LOCK = threading.RLock()
"""Held while flags are saved, changed or put back, but never while a network runs."""
_GENERATORS = threading.RLock()
"""Held by the one block that may draw from the random generators of the process."""


@contextmanager
def at_rest(network: nn.Module) -> Iterator[None]:
    """Evaluation mode without parameter gradients; the last block to be left restores all flags.

    Parameters that need no gradient spare the memory that their backward would save.
    """
    modules, parameters = list(network.modules()), list(network.parameters())
    with _TRAINING.kept(modules), _REQUIRES_GRAD.kept(parameters):
        with _LOCK:
            if any(module.training for module in modules):
                network.eval()
            for parameter in parameters:
                parameter.requires_grad_(False)
        yield


@contextmanager
def observing(network: nn.Module) -> Iterator[None]:
    """At rest, without gradients, and with buffers and random generators left as they were.

    Such blocks of several threads take turns.
    """
    devices = {tensor.device for tensor in (*network.parameters(), *network.buffers())}
    cuda = sorted(device.index or 0 for device in devices if device.type == "cuda")
    with random_state_kept(cuda), at_rest(network), _buffers_kept(network), torch.no_grad():
        yield


@contextmanager
def random_state_kept(devices: Iterable[int]) -> Iterator[None]:
    """Leaves the random generators of torch as they were; such blocks of threads take turns.

    Args:
        devices: Indices of the CUDA devices on which numbers may be drawn.
    """
    with _GENERATORS, torch.random.fork_rng(devices=devices):
        yield


@dataclass
class _SavedFlag:
    owner: Any
    value: bool
    blocks: int = 0


class _SharedFlag:
    """An attribute that several blocks may change, put back when the last of them is left.

    Args:
        name: The attribute.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._saved: dict[int, _SavedFlag] = {}

    @contextmanager
    def kept(self, owners: Iterable[Any]) -> Iterator[None]:
        """Inside, the attribute of these objects may be changed."""
        held: list[_SavedFlag] = []
        try:
            with _LOCK:
                held.extend(map(self._enter, owners))
            yield
        finally:
            with _LOCK:
                self._leave(held)

    def _enter(self, owner: Any) -> _SavedFlag:
        saved = self._saved.get(id(owner))
        if saved is None:
            saved = self._saved[id(owner)] = _SavedFlag(owner, getattr(owner, self._name))
        saved.blocks += 1
        return saved

    def _leave(self, held: Iterable[_SavedFlag]) -> None:
        for saved in held:
            saved.blocks -= 1
        for saved in held:
            if not saved.blocks:
                del self._saved[id(saved.owner)]
        for saved in held:
            # Setting an attribute of a module is slow.
            if not saved.blocks and getattr(saved.owner, self._name) is not saved.value:
                setattr(saved.owner, self._name, saved.value)


_TRAINING, _REQUIRES_GRAD = _SharedFlag("training"), _SharedFlag("requires_grad")


@contextmanager
def _buffers_kept(network: nn.Module) -> Iterator[None]:
    buffers = [
        (module, name, buffer, buffer._version, buffer.detach().clone())
        for module in network.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and not buffer.is_inference()
    ]
    try:
        yield
    finally:
        for place in buffers:
            _restore(*place)


@torch.no_grad()
def _restore(module: nn.Module, name: str, buffer: Tensor, version: int, values: Tensor) -> None:
    """A network may have written to a buffer, or put another one in its place."""
    if buffer._version != version:
        buffer.copy_(values)
    if module._buffers.get(name) is not buffer:
        module._buffers[name] = buffer
