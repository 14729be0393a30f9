"""Tensors inside nested arguments, and marks on tensors that outlive neither them nor a write."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor


def tensors_in(tree: Any) -> Iterator[Tensor]:
    """Every tensor of a nested structure of tuples, lists and dicts, in order."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, (tuple, list)):
        for value in tree:
            yield from tensors_in(value)
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from tensors_in(value)


def map_tensors(tree: Any, function: Callable[[Tensor], Any]) -> Any:
    """The same structure with every tensor replaced by ``function(tensor)``."""
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, dict):
        return {key: map_tensors(value, function) for key, value in tree.items()}
    if isinstance(tree, list):
        return [map_tensors(value, function) for value in tree]
    if isinstance(tree, tuple):
        values = [map_tensors(value, function) for value in tree]
        plain = type(tree) is tuple
        return tuple(values) if plain else _same_kind(tree, values)
    return tree


def _same_kind(named: tuple[Any, ...], values: list[Any]) -> tuple[Any, ...]:
    """A named tuple again: torch's own take one sequence, Python's take the fields."""
    kind: Any = type(named)
    return kind(*values) if hasattr(named, "_fields") else kind(values)  # type: ignore[no-any-return]


class TensorMarks:
    """A weak set of tensors by identity; a tensor written to since it was marked is out of it."""

    def __init__(self) -> None:
        self._marked: dict[int, tuple[weakref.ref[Tensor], int]] = {}

    def add(self, tensor: Tensor) -> None:
        """Marks a tensor as it is now."""
        key = id(tensor)
        if len(self._marked) > 4096:
            self._sweep()
        self._marked[key] = (weakref.ref(tensor), version(tensor))

    def __contains__(self, tensor: Tensor) -> bool:
        found = self._marked.get(id(tensor))
        return found is not None and found[0]() is tensor and found[1] == version(tensor)

    def _sweep(self) -> None:
        alive = {key: mark for key, mark in self._marked.items() if mark[0]() is not None}
        self._marked = alive


def version(tensor: Tensor) -> int:
    """How often the tensor's storage was written in place; 0 for inference tensors."""
    return 0 if tensor.is_inference() else tensor._version


def storage_key(tensor: Tensor) -> int:
    """The address of the storage, equal for all views of one tensor."""
    return tensor.untyped_storage().data_ptr()


def is_floating(tensor: Tensor) -> bool:
    """Whether a gradient could flow through the tensor."""
    return tensor.is_floating_point() or tensor.is_complex()


def wide(dtype: torch.dtype) -> torch.dtype:
    """The type in which differences are taken: half precisions are widened to float32."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
