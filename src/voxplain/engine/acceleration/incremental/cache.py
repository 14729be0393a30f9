"""What the network computes for the unperturbed image, kept where it is read again."""

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

    Most tensors are never read: where a pointwise function follows, the changed box alone goes
    on. What is read, or is the source of several others, is kept.

    Attributes:
        shape: Of the tensor.
        dtype: Of the tensor.
        device: Of the tensor.
        sources: Among how many recipes it is.
    """

    def __init__(
        self, like: Tensor, device: torch.device, recipe: Callable[[], Tensor] | None = None
    ) -> None:
        self.shape, self.dtype, self.device = tuple(like.shape), like.dtype, device
        self.sources = 0
        self._recipe = recipe
        self._kept = recipe is None
        self._tensor = like if recipe is None else None

    @property
    def spatial(self) -> tuple[int, ...]:
        """The shape behind batch and channels."""
        return self.shape[2:]

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        return 0 if self._tensor is None else self._tensor.nbytes

    def read(self) -> Tensor:
        """The tensor, which is kept from now on."""
        self._kept = True
        return self.value()

    def value(self) -> Tensor:
        """The tensor, kept only where others will ask for it."""
        if self._tensor is not None or self._recipe is None:
            assert self._tensor is not None
            return self._tensor
        value = self._recipe()
        if self._kept or self.sources > 1:
            self._tensor = value
        return value


@dataclass(frozen=True, eq=False)
class _CacheEntry:
    cached: CachedActivation
    others: tuple[Tensor, ...]

    @property
    def nbytes(self) -> int:
        return self.cached.nbytes + sum(tensor.nbytes for tensor in self.others)


class ActivationCache:
    """Finds the unperturbed result of a call by its function and arguments.

    Nothing depends on the order of calls, so a network may decide by its data where it goes.

    Args:
        network: Its parameters and buffers are told by identity, all other tensors by value.
    """

    def __init__(self, network: nn.Module) -> None:
        self._own = {id(part): part for part in (*network.parameters(), *network.buffers())}
        self._entries: dict[Any, _CacheEntry] = {}

    @property
    def nbytes(self) -> int:
        """Bytes kept of all tensors."""
        return sum(entry.nbytes for entry in self._entries.values())

    def find(
        self, function: Callable[..., Any], args: Any, kwargs: dict[str, Any], count: int
    ) -> CachedActivation | None:
        """The first tensor that the call gives for the unperturbed image.

        Args:
            function: Deterministic and without side effects.
            args: :class:`CachedActivation` in the places of tensors that depend on the image.
            kwargs: Likewise.
            count: Number of images in the call.

        Returns:
            None where it is unknown, as other tensors among the arguments differ between images
            or have changed since.
        """
        others: list[Tensor] = []
        try:
            key = (function, self._key(args, others), self._key(kwargs, others))
            entry = self._entries.get(key)
        except TypeError:  # an argument that cannot be hashed
            return None
        if count == 1 and any(_of_one_image(tensor) for tensor in others):
            return None
        if entry is None:
            entry = self._enter(key, function, args, kwargs, others)
        if entry is None or not _equal(entry.others, others):
            return None
        return entry.cached

    def _enter(
        self,
        key: Any,
        function: Callable[..., Any],
        args: Any,
        kwargs: dict[str, Any],
        others: list[Tensor],
    ) -> _CacheEntry | None:
        frozen = {id(tensor): tensor.detach().clone() for tensor in others}
        fixed = _map((args, kwargs), lambda one: frozen.get(id(one), one), lambda one: one)
        like = _shape_of(function, fixed)
        sources = [one for one in _leaves((args, kwargs)) if isinstance(one, CachedActivation)]
        if like is None or not like.ndim or like.shape[0] != 1:
            return None
        for source in sources:
            source.sources += 1

        def recipe() -> Tensor:
            found = _first(_called(function, fixed, lambda one: one, CachedActivation.value))
            assert found is not None
            return found

        entry = _CacheEntry(
            CachedActivation(like, sources[0].device, recipe),
            tuple(frozen[id(one)] for one in others),
        )
        self._entries[key] = entry
        return entry

    def _key(self, argument: Any, others: list[Tensor]) -> Any:
        if isinstance(argument, CachedActivation):
            return ("image", id(argument))
        if isinstance(argument, Tensor):
            if id(argument) in self._own:
                return ("own", id(argument))
            others.append(argument)
            return ("other", tuple(argument.shape), argument.dtype, argument.device)
        if isinstance(argument, (tuple, list)):
            return tuple(self._key(part, others) for part in argument)
        if isinstance(argument, dict):
            return tuple((name, self._key(part, others)) for name, part in argument.items())
        hash(argument)
        return (type(argument), argument)


def _called(
    function: Callable[..., Any],
    given: Any,
    tensor: Callable[[Tensor], Any],
    cached: Callable[[CachedActivation], Any],
) -> Any:
    args, kwargs = _map(given, tensor, cached)
    return function(*args, **kwargs)


def _shape_of(function: Callable[..., Any], given: Any) -> Tensor | None:
    """The first tensor that a call gives, without content; None where torch cannot tell."""
    try:
        return _first(_called(function, given, _hollow, _hollow_like))
    except (RuntimeError, NotImplementedError, TypeError):
        return None


def _hollow(tensor: Tensor) -> Tensor:
    return tensor if tensor.ndim == 0 else torch.empty_like(tensor, device="meta")


def _hollow_like(cached: CachedActivation) -> Tensor:
    return torch.empty(cached.shape, dtype=cached.dtype, device="meta")


def _map(
    tree: Any, tensor: Callable[[Tensor], Any], cached: Callable[[CachedActivation], Any]
) -> Any:
    if isinstance(tree, CachedActivation):
        return cached(tree)
    if isinstance(tree, Tensor):
        return tensor(tree)
    if isinstance(tree, (tuple, list)):
        return type(tree)([_map(part, tensor, cached) for part in tree])
    if isinstance(tree, dict):
        return {name: _map(part, tensor, cached) for name, part in tree.items()}
    return tree


def _leaves(tree: Any) -> list[Any]:
    if isinstance(tree, dict):
        tree = tuple(tree.values())
    if isinstance(tree, (tuple, list)):
        return [leaf for part in tree for leaf in _leaves(part)]
    return [tree]


def _first(result: Any) -> Tensor | None:
    return next(tensors_in(result), None)


def _of_one_image(tensor: Tensor) -> bool:
    """Whether a tensor looks like activations of a single image rather than like a constant."""
    return tensor.ndim > 2 and tensor.shape[0] == 1 and math.prod(tensor.shape[2:]) > 1


def _equal(kept: tuple[Tensor, ...], found: list[Tensor]) -> bool:
    return all(torch.equal(one, two) for one, two in zip(kept, found, strict=True))
