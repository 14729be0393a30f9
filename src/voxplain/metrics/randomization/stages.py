"""Stages of a network: the layers with parameters, in the order in which they run."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from voxplain.errors import ModelError
from voxplain.model import Model

Order = Literal["top_down", "bottom_up", "independent"]
"""From the output down, from the input up, or one stage at a time with the others trained."""


def stages(model: Model, example: Tensor) -> tuple[str, ...]:
    """Paths of the modules that hold parameters of their own, in execution order.

    A module counts where one of its parameters is used last: class tokens where they join, an
    output projection of attention that is never called where attention uses its weights. Shared
    weights count once. Modules without parameters of their own are no stage, and neither is what
    the forward never uses.

    Args:
        model: The network; left as it was.
        example: ``(1, C, *spatial)`` of the size that one call sees.

    Raises:
        ModelError: If no module with parameters runs.
    """
    uses = _Uses(model.network)
    with contextlib.ExitStack() as stack, torch.no_grad(), model.at_rest():
        for module in model.network.modules():
            if _own(module):
                stack.callback(module.register_forward_pre_hook(uses.enter).remove)
                stack.callback(module.register_forward_hook(uses.leave).remove)
        with uses:
            model(example)
    paths = {module: path for path, module in model.network.named_modules()}
    found, seen = [], set[int]()
    for module in reversed(uses.last):  # shared weights count at the last of their modules
        fresh = {id(part) for part in _own(module)} - seen
        if fresh:
            found.append(paths[module])
        seen |= fresh
    if not found:
        raise ModelError(f"{model.name} runs no layer with parameters: nothing can be randomized")
    return tuple(reversed(found))


class _Uses(TorchFunctionMode):
    """Notes which modules' parameters functions are given.

    Attributes:
        last: The modules in the order of their last use.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.last: dict[nn.Module, None] = {}
        self._running: list[nn.Module] = []
        self._owners: dict[int, list[nn.Module]] = {}
        for module in network.modules():
            for part in _own(module):
                self._owners.setdefault(id(part), []).append(module)

    def enter(self, module: nn.Module, *_: object) -> None:
        """A module with parameters starts."""
        self._running.append(module)

    def leave(self, module: nn.Module, *_: object) -> None:
        """It ends; one whose functions cannot be watched (a scripted one) counts here."""
        self._running.pop()
        if module not in self.last:
            self._note(module)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        result = func(*args, **given)
        if _computes(func, result):
            for part in _parameters((*args, *given.values())):
                owners = self._owners.get(id(part), [])
                running = [module for module in reversed(self._running) if module in owners]
                for module in running[:1] or owners[:1]:
                    self._note(module)
        return result

    def _note(self, module: nn.Module) -> None:
        self.last.pop(module, None)
        self.last[module] = None


def _computes(func: Callable[..., Any], result: Any) -> bool:
    """Whether numbers come out: asking a weight for its shape, type or data is no use of it."""
    if getattr(func, "__name__", "") == "__get__":
        return False
    return isinstance(result, Tensor) or (
        isinstance(result, (tuple, list)) and any(isinstance(part, Tensor) for part in result)
    )


def _parameters(values: Iterable[Any]) -> Iterator[nn.Parameter]:
    for value in values:
        if isinstance(value, nn.Parameter):
            yield value
        elif isinstance(value, (tuple, list)) and not isinstance(value, torch.Size):
            yield from _parameters(value)


def _own(module: nn.Module) -> list[nn.Parameter]:
    return list(module.parameters(recurse=False))


def grouped(paths: tuple[str, ...], most: int) -> tuple[tuple[str, ...], ...]:
    """Neighboring stages as at most so many steps, of nearly equal numbers of layers."""
    count = min(most, len(paths))
    cuts = [round(len(paths) * step / count) for step in range(count + 1)]
    return tuple(paths[a:b] for a, b in itertools.pairwise(cuts))
