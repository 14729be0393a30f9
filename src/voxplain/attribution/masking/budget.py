"""How many masked images go through the network at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from voxplain.attribution.budget import keep_pages

_CPU_BUDGET = 1024 * 2**20
_GPU_SHARE = 0.5
_COMFORT = 8 * 2**20
"""On a CPU larger activations than this leave the caches, and each image gets slower."""
_LIVE = 4
"""Activations of the largest size that are alive at once, input and output of a block and skips."""
_MOST = 256


class ForwardBudget:
    """The batch size of forwards without gradient, from the largest activation of the first one.

    Args:
        device: Where the network runs.
        limit: Bytes for activations; None for a default of the device.
    """

    def __init__(self, device: torch.device, limit: int | None = None) -> None:
        keep_pages()
        self._limit = limit if limit is not None else _available(device)
        self._comfort = _COMFORT if device.type == "cpu" else self._limit
        self._known = False
        self.size = 2

    @contextlib.contextmanager
    def measured(self, images: int) -> Iterator[None]:
        """Watches the forward inside, the first time."""
        if self._known:
            yield
            return
        with _Largest() as seen:
            yield
        each = max(1, seen.nbytes // images)
        fitting = min(self._limit // (_LIVE * each), max(2, self._comfort // each))
        self.size, self._known = max(1, min(_MOST, fitting)), True

    def halve(self) -> bool:
        """Makes batches smaller after memory ran out; False if they are single images already."""
        if self.size <= 1:
            return False
        self.size //= 2
        return True


class _Largest(TorchFunctionMode):
    """The largest tensor that any function gives."""

    nbytes = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.nbytes = max(self.nbytes, result.numel() * result.element_size())
        return result


def _available(device: torch.device) -> int:
    if device.type != "cuda":
        return _CPU_BUDGET
    free, _ = torch.cuda.mem_get_info(device)
    return int(free * _GPU_SHARE)
