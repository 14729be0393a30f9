"""What rules cannot see: refused, or switched off for the length of a pass."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.utils.checkpoint as checkpointing
from torch import nn

from voxplain.errors import RuleError


@dataclass
class GuardRecord:
    """What the guard did during its block.

    Attributes:
        checkpointed: Segments that ran without their checkpoint.
    """

    checkpointed: int = 0


@contextmanager
def guard(network: nn.Module) -> Iterator[GuardRecord]:
    """Makes every torch call of a network visible to a rule, or says why it cannot be.

    Activation checkpoints are skipped (their segment runs in the open, which costs memory and
    changes no value), and compiled parts run eagerly. Both hold for the block alone.

    Args:
        network: The network under study; it is not changed.

    Yields:
        A record of what was switched off.

    Raises:
        RuleError: For TorchScript parts and ``nn.DataParallel``, with their path.
    """
    for path, reason in invisible_parts(network):
        raise RuleError(f"backward rules cannot see into {path}: {reason}")
    record = GuardRecord()
    with _without_checkpoints(record), _without_compilation():
        yield record


def invisible_parts(network: nn.Module) -> list[tuple[str, str]]:
    """Paths of the parts that no rule can see into, each with the reason and a way out."""
    found = []
    for name, module in network.named_modules():
        path = name or type(network).__name__
        if isinstance(module, nn.DataParallel):
            advice = "its replicas run in other threads; pass the wrapped module instead"
            found.append((path, f"nn.DataParallel, {advice}"))
        elif isinstance(module, torch.jit.ScriptModule):
            found.append((path, "TorchScript; use the original Python module"))
        else:
            found += _scripted_attributes(path, module)
    return found


def _scripted_attributes(path: str, module: nn.Module) -> list[tuple[str, str]]:
    return [
        (f"{path}.{key}", "a scripted or traced function; use the original Python function")
        for key, value in vars(module).items()
        if isinstance(value, torch.jit.ScriptFunction)
    ]


class _ProcessWide:
    """A change of the process that the first of several blocks makes and the last one undoes.

    Args:
        change: A context manager that makes and undoes it.
    """

    def __init__(self, change: Callable[[], AbstractContextManager[None]]) -> None:
        self._change = change
        self._lock = threading.Lock()
        self._blocks = 0
        self._made = ExitStack()

    @contextmanager
    def block(self) -> Iterator[None]:
        """The change holds inside, in all threads."""
        with self._lock:
            if not self._blocks:
                self._made.enter_context(self._change())
            self._blocks += 1
        try:
            yield
        finally:
            with self._lock:
                self._blocks -= 1
                if not self._blocks:
                    self._made.close()


@contextmanager
def _without_compilation() -> Iterator[None]:
    """Runs torch.compile'd code eagerly; nothing to do where nothing was ever compiled."""
    if "torch._dynamo" not in sys.modules:
        yield
        return
    if not hasattr(torch.compiler, "set_stance"):  # before torch 2.6
        raise RuleError("backward rules need torch 2.6 or later for compiled networks")
    with _EAGER.block():
        yield


_EAGER = _ProcessWide(lambda: torch.compiler.set_stance("force_eager"))


class _Guards(threading.local):
    """The records of the guards that the present thread is inside of, the innermost last."""

    def __init__(self) -> None:
        self.records: list[GuardRecord] = []


_GUARDS = _Guards()


@contextmanager
def _without_checkpoints(record: GuardRecord) -> Iterator[None]:
    """Both kinds of ``torch.utils.checkpoint`` run their segment directly in this thread."""
    _GUARDS.records.append(record)
    try:
        with _DIRECT.block():
            yield
    finally:
        _GUARDS.records.pop()


@contextmanager
def _checkpoints_replaced() -> Iterator[None]:
    """Checkpoints ask whether their thread is guarded, and run as ever where it is not.

    The names are looked up by ``checkpoint()`` at each call, however it was imported.
    """
    originals = {name: getattr(checkpointing, name) for name in _SUBSTITUTES}
    for name, substitute in _SUBSTITUTES.items():
        setattr(checkpointing, name, substitute(originals[name]))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(checkpointing, name, original)


_DIRECT = _ProcessWide(_checkpoints_replaced)


class _Reentrant:
    """Takes the place of the reentrant checkpoint function."""

    def __init__(self, original: Any) -> None:
        self._original = original

    def apply(self, function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
        if not _GUARDS.records:
            return self._original.apply(function, preserve, *args)
        _GUARDS.records[-1].checkpointed += 1
        return function(*args)


def _without_reentry(original: Callable[..., Iterator[None]]) -> Callable[..., Iterator[None]]:
    """Takes the place of the generator around the segment of a checkpoint without reentry."""

    def around_segment(*args: Any, **kwargs: Any) -> Iterator[None]:
        if not _GUARDS.records:
            return original(*args, **kwargs)
        _GUARDS.records[-1].checkpointed += 1
        return _nothing_around_it()

    return around_segment


def _nothing_around_it() -> Iterator[None]:
    yield


_SUBSTITUTES: dict[str, Callable[[Any], Any]] = {
    "CheckpointFunction": _Reentrant,
    "_checkpoint_without_reentrant_generator": _without_reentry,
}
