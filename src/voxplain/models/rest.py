"""The state of networks: at rest, put back afterwards, and told apart by what changes it.

At rest means evaluation mode without parameter gradients, for several threads at once.

Modes and flags belong to a network and not to a thread. The first block that needs one changed
saves it, and the last block to be left puts it back, in whichever thread. Blocks are counted per
module and per parameter, because copies of a network may share parameters with it.
"""

from __future__ import annotations

import hashlib
import random
import threading
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from voxplain.models.hooks import ThreadForward, ThreadHook, lasting_attributes

T = TypeVar("T")

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
    """Leaves the random generators of torch, NumPy and Python as they were.

    Such blocks of several threads take turns.

    Args:
        devices: Indices of the CUDA devices on which numbers may be drawn.
    """
    with _GENERATORS, torch.random.fork_rng(devices=devices):
        numpy_state, python_state = np.random.get_state(), random.getstate()
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)


def random_state(devices: Iterable[int]) -> Callable[[], None]:
    """A function that puts the random generators of torch, NumPy and Python as they are now.

    Args:
        devices: Indices of the CUDA devices on which numbers may be drawn.
    """
    on_cpu, numpy_state, python_state = (
        torch.get_rng_state(),
        np.random.get_state(),
        random.getstate(),
    )
    on_cuda = {index: torch.cuda.get_rng_state(index) for index in devices}

    def restore() -> None:
        torch.set_rng_state(on_cpu)
        for index, state in on_cuda.items():
            torch.cuda.set_rng_state(state, index)
        np.random.set_state(numpy_state)
        random.setstate(python_state)

    return restore


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


class KnownOfNetworks(Generic[T]):
    """What is known of networks as long as their weights, attributes and hooks do not change."""

    def __init__(self) -> None:
        self._known: weakref.WeakKeyDictionary[nn.Module, tuple[Hashable, dict[Hashable, T]]] = (
            weakref.WeakKeyDictionary()
        )

    def get(self, network: nn.Module, key: Hashable, find_out: Callable[[], T]) -> T:
        """What is known of a network under a key; it is found out where it is not known."""
        state = state_of(network)
        before, known = self._known.get(network, (None, {}))
        if before != state:
            known = {}
            self._known[network] = (state, known)
        if key not in known:
            known[key] = find_out()
        return known[key]


def state_of(network: nn.Module) -> Hashable:
    """What changes when weights, attributes or hooks are changed in any usual way, but no mode."""
    return tuple(map(_state_of_module, network.modules()))


def _state_of_module(module: nn.Module) -> Hashable:
    held = vars(module)
    if isinstance(held.get("forward"), ThreadForward):
        held = lasting_attributes(module)
    attributes = [
        value if isinstance(value, (int, float, str)) else id(value)
        for name, value in held.items()
        if name != "training"
    ]
    tensors = [*module._parameters.values(), *module._buffers.values()]
    versions = [(id(one), _version_of(one)) for one in tensors if one is not None]
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    lasting = [id(hook) for hook in hooks if not isinstance(hook, ThreadHook)]
    return (id(module), *attributes, *versions, *lasting)


def _version_of(tensor: Tensor) -> int:
    """How often a tensor was written to; 0 where torch does not count it."""
    return 0 if tensor.is_inference() else tensor._version


def weights_sha256(network: nn.Module) -> str:
    """A hash of the parameters and buffers of a network.

    It depends on their names, types, shapes and bytes, not on device, order or mode.
    """
    digest = hashlib.sha256()
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


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
