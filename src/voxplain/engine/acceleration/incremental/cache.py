"""Cached activations of the unperturbed image."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from voxplain.engine.tensors import tensors_in


class CachedActivation:
    """One tensor ``(1, ...)`` of the unperturbed forward, computed when it is first read.

    Most tensors are never read: pointwise operators need the changed boxes alone. A tensor is
    stored once it was read, or if several others are computed from it.

    Attributes:
        shape: Of the tensor.
        dtype: Of the tensor.
        device: Of the tensor.
        uses: Number of cached activations that are computed from it.
    """

    def __init__(
        self, like: Tensor, device: torch.device, compute: Callable[[], Tensor] | None = None
    ) -> None:
        self.shape, self.dtype, self.device = tuple(like.shape), like.dtype, device
        self.uses = 0
        self._compute = compute
        self._stored = compute is None
        self._tensor = like if compute is None else None

    @property
    def spatial(self) -> tuple[int, ...]:
        """The shape without batch and channels."""
        return self.shape[2:]

    @property
    def nbytes(self) -> int:
        """Bytes stored."""
        return 0 if self._tensor is None else self._tensor.nbytes

    def read(self) -> Tensor:
        """The tensor, which is stored from now on."""
        self._stored = True
        return self.value()

    def value(self) -> Tensor:
        """The tensor, which is stored only if several others are computed from it."""
        if self._tensor is not None or self._compute is None:
            assert self._tensor is not None
            return self._tensor
        value = self._compute()
        if self._stored or self.uses > 1:
            self._tensor = value
        return value


@dataclass(frozen=True, eq=False)
class _CacheEntry:
    cached: CachedActivation
    constants: tuple[Tensor, ...]

    @property
    def nbytes(self) -> int:
        return self.cached.nbytes + sum(tensor.nbytes for tensor in self.constants)


class ActivationCache:
    """Unperturbed results by function and arguments.

    Nothing depends on the order of calls, so networks with data-dependent control flow are served.

    Args:
        network: Its parameters and buffers are compared by identity, all other tensors by value.
    """

    def __init__(self, network: nn.Module) -> None:
        self._weights = {
            id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())
        }
        self._entries: dict[Any, _CacheEntry] = {}

    @property
    def nbytes(self) -> int:
        """Bytes stored of all tensors."""
        return sum(entry.nbytes for entry in self._entries.values())

    def find(
        self, function: Callable[..., Any], args: Any, kwargs: dict[str, Any], count: int
    ) -> CachedActivation | None:
        """The first tensor that a call returns for the unperturbed image.

        Args:
            function: Deterministic and without side effects.
            args: With a :class:`CachedActivation` in the place of each tensor that depends on the
                image.
            kwargs: Likewise.
            count: Number of images in the call.

        Returns:
            None if another tensor among the arguments differs between images, or has another
            value than at the first call.
        """
        constants: list[Tensor] = []
        try:
            key = (function, self._key(args, constants), self._key(kwargs, constants))
            entry = self._entries.get(key)
        except TypeError:  # an argument that cannot be hashed
            return None
        if count == 1 and any(_may_be_activation(tensor) for tensor in constants):
            return None
        if entry is None:
            entry = self._add(key, function, args, kwargs, constants)
        if entry is None or not _equal(entry.constants, constants):
            return None
        return entry.cached

    def _add(
        self,
        key: Any,
        function: Callable[..., Any],
        args: Any,
        kwargs: dict[str, Any],
        constants: list[Tensor],
    ) -> _CacheEntry | None:
        copies = {id(tensor): tensor.detach().clone() for tensor in constants}
        arguments = _map(
            (args, kwargs), lambda tensor: copies.get(id(tensor), tensor), lambda cached: cached
        )
        like = _meta_result(function, arguments)
        sources = [leaf for leaf in _leaves((args, kwargs)) if isinstance(leaf, CachedActivation)]
        if like is None or not like.ndim or like.shape[0] != 1:
            return None
        for source in sources:
            source.uses += 1

        def compute() -> Tensor:
            result = _call(function, arguments, lambda tensor: tensor, CachedActivation.value)
            output = _first_tensor(result)
            assert output is not None
            return output

        entry = _CacheEntry(
            CachedActivation(like, sources[0].device, compute),
            tuple(copies[id(tensor)] for tensor in constants),
        )
        self._entries[key] = entry
        return entry

    def _key(self, argument: Any, constants: list[Tensor]) -> Any:
        if isinstance(argument, CachedActivation):
            return ("image", id(argument))
        if isinstance(argument, Tensor):
            if id(argument) in self._weights:
                return ("weight", id(argument))
            constants.append(argument)
            return ("constant", tuple(argument.shape), argument.dtype, argument.device)
        if isinstance(argument, (tuple, list)):
            return tuple(self._key(item, constants) for item in argument)
        if isinstance(argument, dict):
            return tuple((name, self._key(item, constants)) for name, item in argument.items())
        hash(argument)
        return (type(argument), argument)


def _call(
    function: Callable[..., Any],
    arguments: Any,
    tensor: Callable[[Tensor], Any],
    cached: Callable[[CachedActivation], Any],
) -> Any:
    args, kwargs = _map(arguments, tensor, cached)
    return function(*args, **kwargs)


def _meta_result(function: Callable[..., Any], arguments: Any) -> Tensor | None:
    """The first tensor that a call returns, on the meta device; None if torch cannot infer it."""
    try:
        return _first_tensor(_call(function, arguments, _meta_tensor, _meta_activation))
    except (RuntimeError, NotImplementedError, TypeError):
        return None


def _meta_tensor(tensor: Tensor) -> Tensor:
    return tensor if tensor.ndim == 0 else torch.empty_like(tensor, device="meta")


def _meta_activation(cached: CachedActivation) -> Tensor:
    return torch.empty(cached.shape, dtype=cached.dtype, device="meta")


def _map(
    tree: Any, tensor: Callable[[Tensor], Any], cached: Callable[[CachedActivation], Any]
) -> Any:
    if isinstance(tree, CachedActivation):
        return cached(tree)
    if isinstance(tree, Tensor):
        return tensor(tree)
    if isinstance(tree, (tuple, list)):
        return type(tree)([_map(item, tensor, cached) for item in tree])
    if isinstance(tree, dict):
        return {name: _map(item, tensor, cached) for name, item in tree.items()}
    return tree


def _leaves(tree: Any) -> list[Any]:
    if isinstance(tree, dict):
        tree = tuple(tree.values())
    if isinstance(tree, (tuple, list)):
        return [leaf for item in tree for leaf in _leaves(item)]
    return [tree]


def _first_tensor(result: Any) -> Tensor | None:
    return next(tensors_in(result), None)


def _may_be_activation(tensor: Tensor) -> bool:
    """Whether a tensor has the shape of activations of a single image rather than of a constant."""
    return tensor.ndim > 2 and tensor.shape[0] == 1 and math.prod(tensor.shape[2:]) > 1


def _equal(stored: tuple[Tensor, ...], given: list[Tensor]) -> bool:
    return all(torch.equal(copy, tensor) for copy, tensor in zip(stored, given, strict=True))
