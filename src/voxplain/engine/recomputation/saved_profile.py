"""What autograd saves in one forward, and in which modules; nothing of it is kept."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from voxplain.engine.acceleration.forward_trace import attributes_of, is_of_tensors, lies_in
from voxplain.engine.tensors import tensors_in, version
from voxplain.models.hooks import ThreadHook, add_hook
from voxplain.models.model import Model
from voxplain.models.programs import COMPILED


@dataclass(frozen=True)
class ModuleProfile:
    """One module in one forward.

    Attributes:
        calls: How often it was called.
        given: Numbers of the storages that its (first) call was given.
        returns_tensors: Whether its output is nothing but tensors.
        writes: Whether it wrote into what it was given.
        pure: Whether it, and all modules in it, leave their attributes and buffers as they are, and
            are seen as Python code.
        hooked: Whether it has hooks of the user.
    """

    calls: int = 0
    given: frozenset[int] = frozenset()
    returns_tensors: bool = False
    writes: bool = False
    pure: bool = True
    hooked: bool = False


@dataclass(frozen=True)
class SavedProfile:
    """What autograd saves in one forward of a network.

    Attributes:
        modules: By path, all modules; the network itself under the empty path.
        sizes: Bytes of each storage, by its number.
        savers: By the number of a saved storage, paths of the innermost modules that saved it.
    """

    modules: Mapping[str, ModuleProfile]
    sizes: Mapping[int, int]
    savers: Mapping[int, frozenset[str]]

    def bytes_of(self, numbers: frozenset[int] | set[int]) -> int:
        """Bytes of some storages."""
        return sum(self.sizes[number] for number in numbers)

    @property
    def saved(self) -> int:
        """Bytes of all that is saved."""
        return self.bytes_of(set(self.savers))


def profile_of(model: Model, example: Tensor) -> SavedProfile:
    """Runs one forward, and drops what is saved at once, so that it takes no more memory.

    Args:
        model: The network, at rest; left as it was.
        example: ``(1, C, *spatial)``, what one call sees.
    """
    profiler = _Profiler(model.network)
    hooks = torch.autograd.graph.saved_tensors_hooks(profiler.save, _nothing)
    with contextlib.ExitStack() as stack, torch.inference_mode(False), torch.enable_grad():
        for path, module in model.network.named_modules():
            profiler.follow(path, module, stack)
        with model.precise(), hooks:
            model(example.detach().clone().requires_grad_(True))
    return profiler.profile()


class _Profiler:
    """Notes the saved tensors and the calls of modules."""

    def __init__(self, network: nn.Module) -> None:
        self._storages: dict[StorageWeakRef, int] = {}
        self._sizes: dict[int, int] = {}
        self._savers: dict[int, set[str]] = {}
        self._notes = {path: _Notes(module) for path, module in network.named_modules()}
        self._running: list[str] = [""]
        self._versions: list[list[tuple[Tensor, int]]] = []

    def follow(self, path: str, module: nn.Module, stack: contextlib.ExitStack) -> None:
        """Notes the calls of a module until the stack closes."""
        notes = self._notes[path]

        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            tensors = list(tensors_in((args, kwargs)))
            notes.calls += 1
            notes.given |= {self._number(tensor) for tensor in tensors if tensor.requires_grad}
            self._running.append(path)
            self._versions.append([(tensor, version(tensor)) for tensor in tensors])

        def after(_: nn.Module, __: object, ___: object, output: Any) -> None:
            self._running.pop()
            notes.writes |= any(version(each) != old for each, old in self._versions.pop())
            notes.returns_tensors = is_of_tensors(output)

        add_hook(stack, module.register_forward_pre_hook, before, with_kwargs=True)
        add_hook(stack, module.register_forward_hook, after, with_kwargs=True)

    def save(self, tensor: Tensor) -> None:
        """Notes a tensor that autograd saves; parameters are there anyway."""
        if not isinstance(tensor if tensor._base is None else tensor._base, nn.Parameter):
            self._savers.setdefault(self._number(tensor), set()).add(self._running[-1])

    def profile(self) -> SavedProfile:
        """What was noted."""
        impure = [path for path, notes in self._notes.items() if notes.has_changed()]
        return SavedProfile(
            modules={
                path: ModuleProfile(
                    calls=notes.calls,
                    given=frozenset(notes.given),
                    returns_tensors=notes.returns_tensors,
                    writes=notes.writes,
                    pure=not any(not path or lies_in(other, path) for other in impure),
                    hooked=notes.hooked,
                )
                for path, notes in self._notes.items()
            },
            sizes=self._sizes,
            savers={number: frozenset(paths) for number, paths in self._savers.items()},
        )

    def _number(self, tensor: Tensor) -> int:
        """The number of a storage; a weak reference keeps its identity, and not its memory."""
        storage = tensor.untyped_storage()
        reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
        number = self._storages.setdefault(reference, len(self._storages))
        self._sizes[number] = storage.nbytes()
        return number


@dataclass
class _Notes:
    """What is noted of a module."""

    module: nn.Module
    calls: int = 0
    given: set[int] = field(default_factory=set)
    returns_tensors: bool = False
    writes: bool = False

    def __post_init__(self) -> None:
        module = self.module
        self._before = attributes_of(module), _versions_of_buffers(module)
        hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
        self.hooked = any(not isinstance(hook, ThreadHook) for hook in hooks)

    def has_changed(self) -> bool:
        """Whether it changed in the forward, or runs out of sight."""
        after = attributes_of(self.module), _versions_of_buffers(self.module)
        return self._before != after or isinstance(self.module, COMPILED)


def _versions_of_buffers(module: nn.Module) -> list[int]:
    return [version(buffer) for buffer in module._buffers.values() if buffer is not None]


def _nothing(_: Any) -> Tensor:
    raise RuntimeError("what this forward saves is only counted")
