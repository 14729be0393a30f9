"""Masks on a layer: channels of an activation that are replaced while the network runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from voxplain.attribution.masking.masks import Masks, Painter
from voxplain.attribution.taps import Changes, Tap
from voxplain.errors import ModelError

if TYPE_CHECKING:
    from voxplain.attribution.scene import Scene


@dataclass(frozen=True, eq=False)
class LayerChannels(Masks):
    """Channels of a layer, each replaced alone.

    Attributes:
        tap: The layer.
        groups: The channels that each mask replaces.
        level: What they become: a number, or None for their mean over positions.
        scene: Knows how the layer arranges its channels.
        shape: Spatial shape of the image.
    """

    tap: Tap
    groups: tuple[tuple[int, ...], ...]
    level: float | None
    scene: Scene
    shape: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.groups)

    @property
    def size(self) -> tuple[float, ...]:  # type: ignore[override]
        """The image itself is left alone."""
        return (1.0,) * len(self.shape)

    def painter(self, image: Tensor, filled: Tensor) -> Painter:
        """The image as it is."""
        return _Unpainted(len(self), image, filled)

    def removed(self, index: int) -> Tensor:
        """Nothing of the image."""
        return torch.zeros(self.shape, dtype=torch.bool)

    def changes(self, indices: Sequence[int]) -> Changes:
        """What to put in place at the layer, for a batch with one mask per row."""
        return {self.tap: lambda value: self._replaced(value, indices)}

    def _replaced(self, value: Tensor, indices: Sequence[int]) -> Tensor:
        changed = value.clone()
        channels = self.scene.arranged(self.tap, changed)
        if channels.untyped_storage().data_ptr() != changed.untyped_storage().data_ptr():
            raise ModelError(
                f"the channels of layer {self.tap.path!r} cannot be replaced one by one"
            )
        for row in range(len(changed)):
            group = list(self.groups[indices[row % len(indices)]])
            part = channels[row, group]
            mean = part.flatten(1).mean(dim=1).view(-1, *(1,) * (part.ndim - 1))
            channels[row, group] = mean.expand_as(part) if self.level is None else self.level
        return changed


class _Unpainted(Painter):
    def __init__(self, count: int, image: Tensor, filled: Tensor) -> None:
        super().__init__(image, filled)
        self._count = count

    def identities(self) -> Sequence[object]:
        return range(self._count)

    def paint(self, row: int, canvas: Tensor, index: int) -> None:
        """The network is changed, not the image."""

    def forget(self, rows: int) -> None:
        """Nothing was painted."""
