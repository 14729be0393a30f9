"""What rules cannot see: refused, or switched off for the length of a pass."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
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
    watch = GuardRecord()
    with ExitStack() as stack:
        stack.enter_context(_without_checkpoints(watch))
        stack.enter_context(_without_compilation())
        yield watch


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


@contextmanager
def _without_compilation() -> Iterator[None]:
    """Runs torch.compile'd code eagerly; nothing to do where nothing was ever compiled."""
    if "torch._dynamo" not in sys.modules:
        yield
        return
    set_stance = getattr(torch.compiler, "set_stance", None)
    if set_stance is None:  # before torch 2.6
        raise RuleError("backward rules need torch 2.6 or later for compiled networks")
    with set_stance("force_eager"):
        yield


class _OpenSegment:
    """Takes the place of the reentrant checkpoint function and simply calls the segment."""

    def __init__(self, watch: GuardRecord) -> None:
        self._watch = watch

    def apply(self, function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
        self._watch.checkpointed += 1
        return function(*args)


_LOCK = threading.RLock()


@contextmanager
def _without_checkpoints(watch: GuardRecord) -> Iterator[None]:
    """Both kinds of ``torch.utils.checkpoint`` let their segment run in the open.

    The names are looked up by ``checkpoint()`` at each call, however it was imported. Another
    thread that runs meanwhile keeps its values and only loses the memory saving.
    """

    def open_segment(*_: Any, **__: Any) -> Iterator[None]:
        watch.checkpointed += 1
        yield

    substitutes = {
        "CheckpointFunction": _OpenSegment(watch),
        "_checkpoint_without_reentrant_generator": open_segment,
    }
    with _LOCK:
        originals = {name: getattr(checkpointing, name) for name in substitutes}
        try:
            for name, substitute in substitutes.items():
                setattr(checkpointing, name, substitute)
            yield
        finally:
            for name, original in originals.items():
                setattr(checkpointing, name, original)
