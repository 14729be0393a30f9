"""Masks on a layer: channels of an activation that are replaced during the forward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from voxplain.engine.context import Context
from voxplain.engine.interventions import memory_positions
from voxplain.engine.masks.channel_groups import Groups
from voxplain.engine.masks.masks import Masks, Painter
from voxplain.engine.taps import Changes, Tap


@dataclass(frozen=True, eq=False)
class LayerChannels(Masks):
    """Channels of a layer, replaced alone or in groups.

    Attributes:
        tap: The layer.
        call: The call of the layer that is changed.
        groups: The channels that each mask replaces.
        levels: The value that replaces each channel, ``(K,)``.
        activation: Of the unmasked image, ``(K, *cells)``; ``(K, windows, *cells)`` in windows.
        placed: Whether every value of the layer has a place in the image; class tokens have none.
        context: Of the network and the image.
        shape: Spatial shape of the image.
        remark: A sentence for readers of the map, or None.
    """

    tap: Tap
    call: Tap
    groups: Groups
    levels: Tensor
    activation: Tensor
    placed: bool
    context: Context
    shape: tuple[int, ...]
    remark: str | None = None

    at_layer: ClassVar[bool] = True

    def __len__(self) -> int:
        return len(self.groups)

    def extent(self) -> tuple[float, ...]:
        """One voxel, as the image is not changed."""
        return (1.0,) * len(self.shape)

    def painter(self, image: Tensor, filled: Tensor) -> Painter:
        return _UnchangedPainter(self._unchanged, image, filled)

    def removed(self, index: int) -> Tensor:
        """No voxel of the image."""
        return torch.zeros(self.shape, dtype=torch.bool)

    def changes(self, indices: Sequence[int]) -> Changes:
        """Changes of the layer for a batch with one mask per row."""
        return {self.call: lambda value: self._replaced(value, indices)}

    def _replaced(self, value: Tensor, indices: Sequence[int]) -> Tensor:
        """The activation with channels replaced; a batch may repeat its rows (doubled volumes)."""
        changed = value.clone(memory_format=torch.contiguous_format)
        cells = self.context.layers.arranged(self.tap, memory_positions(changed.shape)).to(
            changed.device
        )
        axis = _channel_axis(cells, changed)
        flat, levels = changed.view(-1), self.levels.to(changed)
        for row in range(len(cells)):
            group = list(self.groups[indices[row % len(indices)]])
            if axis is not None:  # includes values without a place in the image (class tokens)
                channels = changed[row].movedim(axis - 1, 0)
                channels[group] = _column(levels[group], channels).expand_as(channels[group])
            else:
                positions = cells[row, group]
                flat[positions] = _column(levels[group], positions).expand(positions.shape)
        return changed

    @cached_property
    def _unchanged(self) -> list[bool]:
        """Whether the channels of each group already have the value that replaces them."""
        column = _column(self.levels, self.activation).to(self.activation)
        same = (self.activation == column).flatten(1).all(dim=1)
        return [self.placed and bool(same[list(group)].all()) for group in self.groups]


def _channel_axis(cells: Tensor, value: Tensor) -> int | None:
    """The dimension of a tensor that holds its channels; None if they are spread over several.

    Args:
        cells: Position of each cell in memory, ``(B, K, *cells)``.
        value: The tensor, contiguous.
    """
    channels = cells.flatten(2)[0, :, 0]
    if len(cells) != len(value) or len(channels) < 2:
        return None
    step = int(channels[1] - channels[0])
    axes = (axis for axis in range(1, value.ndim) if value.shape[axis] == len(channels))
    return next((axis for axis in axes if value.stride(axis) == step), None)


def _column(values: Tensor, like: Tensor) -> Tensor:
    """The values as ``(K, 1, ..., 1)``."""
    return values.view(-1, *(1,) * (like.ndim - 1))


class _UnchangedPainter(Painter):
    """Leaves the image as it is; the masks change the activation of a layer."""

    def __init__(self, unchanged: Sequence[bool], image: Tensor, filled: Tensor) -> None:
        super().__init__(image, filled)
        self._unchanged = unchanged

    def identities(self) -> Sequence[object]:
        """One key per group; None for groups that would not change."""
        return [None if unchanged else index for index, unchanged in enumerate(self._unchanged)]

    def paint(self, row: int, canvas: Tensor, index: int) -> None:
        """Nothing to paint."""

    def reset(self, rows: int) -> None:
        """Nothing was painted."""
