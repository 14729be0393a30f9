"""The range of intensities that the box rule reads, followed while the image is moved about."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from voxplain.engine.tensors import map_tensors, tensors_in, version
from voxplain.errors import ConfigError

Levels = tuple[float, ...] | None


@dataclass(frozen=True, eq=False)
class OriginalCall:
    """A function as the network called it."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def on(self, change: Callable[[Tensor], Tensor]) -> Any:
        """The same call with every tensor changed."""
        return self.function(*map_tensors(self.args, change), **map_tensors(self.kwargs, change))


class Range:
    """Smallest and largest intensity at each place of tensors that hold the image itself.

    Args:
        low: Per channel or one for all; None for that of the image.
        high: Likewise.

    Raises:
        ConfigError: If only one of them is given, or low exceeds high.
    """

    def __init__(self, low: Levels, high: Levels) -> None:
        if (low is None) is not (high is None):
            raise ConfigError("the box rule takes low and high together, or neither")
        pairs = () if low is None or high is None else zip(low, high, strict=False)
        if any(below > above for below, above in pairs):
            raise ConfigError(f"low must not exceed high: {low} and {high}")
        self._given = (low, high)
        self._rows: tuple[Tensor, Tensor] | None = None
        self._known: dict[int, tuple[weakref.ref[Tensor], int, Tensor, Tensor]] = {}

    def look(self, image: Tensor) -> None:
        """Takes the range of each image and channel, unless it was given.

        Args:
            image: ``(B, C, *spatial)``; without spatial axes the range is over the channels.
        """
        image = image.detach()
        flat = image.flatten(2) if image.ndim > 2 else image.flatten(1)[:, None]
        low, high = self._given
        self._rows = (_levels(low, flat.amin(2), image), _levels(high, flat.amax(2), image))

    def start(self, image: Tensor) -> None:
        """Knows the range of what the network was given, a batch of images or windows."""
        if self.of(image) is not None or image.ndim < 2:
            return
        if self._rows is None:
            self.look(image)
        assert self._rows is not None
        low, high = (self._spread(row, image) for row in self._rows)
        self._know(image, low, high)

    def of(self, tensor: Tensor) -> tuple[Tensor, Tensor] | None:
        """Both ends of a tensor that holds the image itself, of its shape; else None."""
        found = self._known.get(id(tensor))
        if found is None or found[0]() is not tensor or found[1] != version(tensor):
            return None
        return found[2], found[3]

    def follow(self, asked: OriginalCall, result: Any) -> None:
        """Moves the range of an operand as the function moved the operand."""
        with torch.no_grad():
            lows = asked.on(lambda tensor: (self.of(tensor) or (tensor,))[0])
            highs = asked.on(lambda tensor: (self.of(tensor) or (tensor,))[-1])
        parts = (tensors_in(lows), tensors_in(highs))
        for tensor, low, high in zip(tensors_in(result), *parts, strict=True):
            self._know(tensor, low, high)

    def _know(self, tensor: Tensor, low: Tensor, high: Tensor) -> None:
        self._known[id(tensor)] = (weakref.ref(tensor), version(tensor), low, high)

    def _spread(self, row: Tensor, image: Tensor) -> Tensor:
        shape = (*row.shape, *[1] * (image.ndim - 2))
        return row.to(image).reshape(shape).expand_as(image)


def _levels(given: Levels, found: Tensor, image: Tensor) -> Tensor:
    if given is None:
        return found
    if len(given) not in (1, image.shape[1]):
        raise ConfigError(
            f"low and high have {len(given)} values for an image of {image.shape[1]} channels"
        )
    return found.new_tensor(given).expand(1, image.shape[1])
