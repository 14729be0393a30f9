"""Forward hooks and forwards that act in one thread, on networks that several threads may share."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

_LOCK = threading.RLock()
"""Held while hooks are added or removed, and while a network is copied with its hooks."""


class ThreadHook:
    """A hook that calls its function in the thread that created it, and does nothing in others.

    A forward that an activation checkpoint repeats during backward may run in a thread of autograd;
    such hooks do not see it.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function, self._thread = function, threading.get_ident()

    def __call__(self, *args: Any) -> Any:
        """What the function returns; None in other threads, which leaves the call as it is."""
        return self._function(*args) if threading.get_ident() == self._thread else None

    def __deepcopy__(self, _: dict[int, Any]) -> ThreadHook:
        return self  # copy_network drops it from the copy


def add_hook(
    stack: ExitStack,
    register: Callable[..., RemovableHandle],
    function: Callable[..., Any],
    **options: bool,
) -> None:
    """Adds a forward hook for the calling thread until a stack closes.

    Args:
        stack: Removes the hook.
        register: A method such as ``module.register_forward_hook``.
        function: The hook.
        options: Passed to ``register``.
    """
    with _LOCK:
        handle = register(ThreadHook(function), **options)
    stack.callback(_remove, handle)


def _remove(handle: RemovableHandle) -> None:
    with _LOCK:
        handle.remove()


class ThreadForward:
    """In place of the forward of a module: another one in some threads, its own in the others.

    Args:
        module: Whose forward it is.

    Attributes:
        usual: The forward in all other threads.
        attribute: The forward that the module itself had as an attribute; None for that of its
            class.
        of_thread: The forward in a thread.
    """

    def __init__(self, module: nn.Module) -> None:
        self.usual: Callable[..., Any] = module.forward
        self.attribute: Callable[..., Any] | None = vars(module).get("forward")
        self.of_thread: dict[int, Callable[..., Any]] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the forward of the calling thread returns."""
        return self.of_thread.get(threading.get_ident(), self.usual)(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """What the module itself had; else itself, which copy_network drops from the copy."""
        return self if self.attribute is None else copy.deepcopy(self.attribute, memo)


def replace_forward(
    stack: ExitStack,
    module: nn.Module,
    replacement: Callable[[Callable[..., Any]], Callable[..., Any]],
) -> None:
    """Replaces the forward of a module, for the calling thread, until a stack closes.

    Hooks of the module are outside of it.

    Args:
        stack: Puts it back.
        module: The module.
        replacement: Makes the new forward of the present one.
    """
    thread = threading.get_ident()
    with _LOCK:
        placed = vars(module).get("forward")
        if not isinstance(placed, ThreadForward):
            placed = ThreadForward(module)
            vars(module)["forward"] = placed
        before = placed.of_thread.get(thread)
        placed.of_thread[thread] = replacement(before or placed.usual)
    stack.callback(_put_back, module, placed, before)


def _put_back(module: nn.Module, placed: ThreadForward, before: Callable[..., Any] | None) -> None:
    thread = threading.get_ident()
    with _LOCK:
        if before is not None:
            placed.of_thread[thread] = before
            return
        del placed.of_thread[thread]
        if placed.of_thread or vars(module).get("forward") is not placed:
            return
        del vars(module)["forward"]
        if placed.attribute is not None:
            vars(module)["forward"] = placed.attribute


def lasting_attributes(module: nn.Module) -> dict[str, Any]:
    """The attributes of a module, without what threads have put there for a while."""
    attributes = dict(vars(module))
    placed = attributes.get("forward")
    if isinstance(placed, ThreadForward):
        attributes["forward"] = placed.attribute
        if placed.attribute is None:
            del attributes["forward"]
    return attributes


def copy_network(network: nn.Module, shared: Mapping[int, Tensor] | None = None) -> nn.Module:
    """A deep copy of a network, without hooks that threads have added for a while.

    Args:
        network: Left as it was.
        shared: Parameters that are not copied, by their ``id``.
    """
    with _LOCK:
        duplicate = copy.deepcopy(network, _computed(network) | dict[int, Any](shared or {}))
    for module in duplicate.modules():
        _drop_thread_hooks(module)
    return duplicate


def _computed(network: nn.Module) -> dict[int, Any]:
    """Copies of tensors with a history that modules hold, by ``id``: deepcopy refuses these.

    Weight norm and pruning leave the weight of the last forward on the module.
    """
    held = (value for module in network.modules() for value in vars(module).values())
    tensors = (value for value in held if isinstance(value, Tensor) and not value.is_leaf)
    return {id(tensor): tensor.detach().clone() for tensor in tensors}


def _drop_thread_hooks(module: nn.Module) -> None:
    if isinstance(vars(module).get("forward"), ThreadForward):
        del vars(module)["forward"]
    options = (module._forward_hooks_with_kwargs, module._forward_pre_hooks_with_kwargs)
    for hooks in (module._forward_hooks, module._forward_pre_hooks):
        for key in [key for key, hook in hooks.items() if isinstance(hook, ThreadHook)]:
            for table in (hooks, *options):
                table.pop(key, None)
