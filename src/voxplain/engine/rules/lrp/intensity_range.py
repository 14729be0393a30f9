"""Ranges of intensities for the box rule, followed through rearrangements of the image."""

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
    """A function with its arguments, as the network called it."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def run_with(self, change: Callable[[Tensor], Tensor]) -> Any:
        """Result of the call with every tensor argument replaced."""
        return self.function(*map_tensors(self.args, change), **map_tensors(self.kwargs, change))


class IntensityRange:
    """Smallest and largest intensity at each place of tensors that hold the image itself.

    Args:
        low: Smallest intensity, per channel or one for all; None for that of the image.
        high: Largest one.

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
        self._limits: tuple[Tensor, Tensor] | None = None
        self._ranges: dict[int, tuple[weakref.ref[Tensor], int, Tensor, Tensor]] = {}

    def observe(self, image: Tensor) -> None:
        """Takes the range of each image and channel, unless it was given.

        Args:
            image: ``(B, C, *spatial)``; without spatial axes the range is over the channels.
        """
        image = image.detach()
        flat = image.flatten(2) if image.ndim > 2 else image.flatten(1)[:, None]
        low, high = self._given
        self._limits = (_levels(low, flat.amin(2), image), _levels(high, flat.amax(2), image))

    def add_image(self, image: Tensor) -> None:
        """Stores the range of the input of the network, a batch of images or windows."""
        if self.of(image) is not None or image.ndim < 2:
            return
        if self._limits is None:
            self.observe(image)
        assert self._limits is not None
        low, high = (_expanded(limit, image) for limit in self._limits)
        self._store(image, low, high)

    def of(self, tensor: Tensor) -> tuple[Tensor, Tensor] | None:
        """Low and high of a tensor that holds the image itself, of its shape; else None."""
        entry = self._ranges.get(id(tensor))
        if entry is None or entry[0]() is not tensor or entry[1] != version(tensor):
            return None
        return entry[2], entry[3]

    def transform(self, call: OriginalCall, result: Any) -> None:
        """Stores the range of a rearranged image: that of the operand, rearranged alike."""
        with torch.no_grad():
            lows = call.run_with(lambda tensor: (self.of(tensor) or (tensor,))[0])
            highs = call.run_with(lambda tensor: (self.of(tensor) or (tensor,))[-1])
        ranges = (tensors_in(lows), tensors_in(highs))
        for tensor, low, high in zip(tensors_in(result), *ranges, strict=True):
            self._store(tensor, low, high)

    def _store(self, tensor: Tensor, low: Tensor, high: Tensor) -> None:
        self._ranges[id(tensor)] = (weakref.ref(tensor), version(tensor), low, high)


def _expanded(limit: Tensor, image: Tensor) -> Tensor:
    shape = (*limit.shape, *[1] * (image.ndim - 2))
    return limit.to(image).reshape(shape).expand_as(image)


def _levels(given: Levels, observed: Tensor, image: Tensor) -> Tensor:
    """The given levels, or the observed ones, ``(B or 1, C)``."""
    if given is None:
        return observed
    if len(given) not in (1, image.shape[1]):
        raise ConfigError(
            f"low and high have {len(given)} values for an image of {image.shape[1]} channels"
        )
    return observed.new_tensor(given).expand(1, image.shape[1])
