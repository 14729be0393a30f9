"""Masks on a layer: channels of an activation that are replaced while the network runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from voxplain.engine.context import Context
from voxplain.engine.masks.channel_groups import Groups
from voxplain.engine.masks.masks import Masks, Painter
from voxplain.engine.taps import Changes, Tap


@dataclass(frozen=True, eq=False)
class LayerChannels(Masks):
    """Channels of a layer, replaced alone or in groups.

    Attributes:
        tap: The layer.
        call: The one call of it that is changed.
        groups: The channels that each mask replaces.
        levels: What each channel of the layer becomes, ``(K,)``.
        activation: Of the unmasked image, ``(K, *cells)``; ``(K, windows, *cells)`` in windows.
        placed: Whether all of the layer has a place in the image; class tokens have none.
        context: Knows how the layer arranges its channels.
        shape: Spatial shape of the image.
    """

    tap: Tap
    call: Tap
    groups: Groups
    levels: Tensor
    activation: Tensor
    placed: bool
    context: Context
    shape: tuple[int, ...]

    at_layer: ClassVar[bool] = True

    def __len__(self) -> int:
        return len(self.groups)

    @property
    def size(self) -> tuple[float, ...]:  # type: ignore[override]
        """The image itself is left alone."""
        return (1.0,) * len(self.shape)

    def painter(self, image: Tensor, filled: Tensor) -> Painter:
        """The image as it is."""
        return _Unpainted(self._idle, image, filled)

    def removed(self, index: int) -> Tensor:
        """Nothing of the image."""
        return torch.zeros(self.shape, dtype=torch.bool)

    def changes(self, indices: Sequence[int]) -> Changes:
        """What to put in place at the layer, for a batch with one mask per row."""
        return {self.call: lambda value: self._replaced(value, indices)}

    def _replaced(self, value: Tensor, indices: Sequence[int]) -> Tensor:
        """The rows of a batch may come several times, where a lone image is doubled."""
        changed = value.clone(memory_format=torch.contiguous_format)
        cells = self.context.arranged(self.tap, _numbers(changed.shape)).to(changed.device)
        axis = _channel_axis(cells, changed)
        flat, levels = changed.view(-1), self.levels.to(changed)
        for row in range(len(cells)):
            group = list(self.groups[indices[row % len(indices)]])
            if axis is not None:  # also what has no place in the image, such as a class token
                every = changed[row].movedim(axis - 1, 0)
                every[group] = _column(levels[group], every).expand_as(every[group])
            else:
                at = cells[row, group]
                flat[at] = _column(levels[group], at).expand(at.shape)
        return changed

    @cached_property
    def _idle(self) -> list[bool]:
        """Groups that already are what they would become, everywhere."""
        column = _column(self.levels, self.activation).to(self.activation)
        same = (self.activation == column).flatten(1).all(dim=1)
        return [self.placed and bool(same[list(group)].all()) for group in self.groups]


@lru_cache(maxsize=4)
def _numbers(shape: torch.Size) -> Tensor:
    """A number for every value of a tensor; arranged, it says where each cell lies in memory."""
    return torch.arange(shape.numel()).view(shape)


def _channel_axis(cells: Tensor, value: Tensor) -> int | None:
    """The dimension of a tensor that holds its channels; None where they are spread over several.

    Args:
        cells: Where in memory each cell lies, ``(B, K, *cells)``.
        value: Contiguous.
    """
    channels = cells.flatten(2)[0, :, 0]
    if len(cells) != len(value) or len(channels) < 2:
        return None
    step = int(channels[1] - channels[0])
    axes = (axis for axis in range(1, value.ndim) if value.shape[axis] == len(channels))
    return next((axis for axis in axes if value.stride(axis) == step), None)


def _column(values: Tensor, like: Tensor) -> Tensor:
    """``(K, 1, ..., 1)``."""
    return values.view(-1, *(1,) * (like.ndim - 1))


class _Unpainted(Painter):
    def __init__(self, idle: Sequence[bool], image: Tensor, filled: Tensor) -> None:
        super().__init__(image, filled)
        self._idle = idle

    def identities(self) -> Sequence[object]:
        """Channels that would not change give the score of the image."""
        return [None if idle else index for index, idle in enumerate(self._idle)]

    def paint(self, row: int, canvas: Tensor, index: int) -> None:
        """The network is changed, not the image."""

    def forget(self, rows: int) -> None:
        """Nothing was painted."""
