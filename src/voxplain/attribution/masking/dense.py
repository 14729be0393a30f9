"""Masks with a weight of their own on every voxel: random grids, activations of a layer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from voxplain.attribution.masking.masks import Masks, Painter
from voxplain.attribution.taps import Tap

if TYPE_CHECKING:
    from voxplain.attribution.scene import Scene


class DenseMasks(Masks):
    """Masks that are made when they are needed; only what they are made from is kept."""

    @abstractmethod
    def weights(self, index: int, like: Tensor) -> Tensor:
        """One mask, ``(*spatial)`` in [0, 1], in the type and place of ``like``."""

    def painter(self, image: Tensor, filled: Tensor) -> Painter:
        """Blends image and fill by the mask."""
        return _Blending(self, image, filled)

    def removed(self, index: int) -> Tensor:
        """Where less than half is kept."""
        return self.weights(index, torch.zeros(1)) < 0.5


class _Blending(Painter):
    def __init__(self, masks: DenseMasks, image: Tensor, filled: Tensor) -> None:
        super().__init__(image, filled)
        self._masks = masks

    def identities(self) -> Sequence[object]:
        """Every mask is its own."""
        return range(len(self._masks))

    def paint(self, row: int, canvas: Tensor, index: int) -> None:
        weights = self._masks.weights(index, canvas).expand_as(self.image)
        torch.lerp(self.filled, self.image, weights, out=canvas)

    def forget(self, rows: int) -> None:
        """Every mask is painted anew anyway."""


@dataclass(frozen=True, eq=False)
class Grids(DenseMasks):
    """Coarse grids, interpolated and shifted by less than a cell (RISE).

    Attributes:
        grids: ``(n, *cells)`` of 0 and 1.
        shifts: ``(n, axes)`` voxels.
        cell: Voxels of a cell per axis.
        shape: Spatial shape of the image.
    """

    grids: Tensor
    shifts: Tensor
    cell: tuple[int, ...]
    shape: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.grids)

    @property
    def size(self) -> tuple[float, ...]:  # type: ignore[override]
        """A cell."""
        return tuple(float(side) for side in self.cell)

    def weights(self, index: int, like: Tensor) -> Tensor:
        """The interpolated grid, one axis after the other."""
        mask = self.grids[index].to(like)
        for axis, (cell, side) in enumerate(zip(self.cell, self.shape, strict=True)):
            shift = int(self.shifts[index, axis])
            rows = _upsampling(self.grids.shape[axis + 1], cell).to(like)[shift : shift + side]
            mask = torch.tensordot(rows, mask, dims=([1], [axis])).movedim(0, axis)
        return mask


def _upsampling(cells: int, cell: int) -> Tensor:
    """Linear interpolation of values over one cell more, ``((cells + 1) * cell, cells)``."""
    if cells == 1:
        return torch.ones(2 * cell, 1)
    identity = torch.eye(cells)[:, None]
    over = (cells + 1) * cell
    return functional.interpolate(identity, size=over, mode="linear", align_corners=False)[:, 0].T


@dataclass(frozen=True, eq=False)
class ActivationMasks(DenseMasks):
    """Channels of a layer on the image grid, each scaled to [0, 1]; the last mask keeps nothing.

    Attributes:
        activation: ``(K, *cells)``; of windowed networks ``(K, windows, *cells)``.
        tap: The layer.
        scene: Knows where its cells lie.
        shape: Spatial shape of the image.
    """

    activation: Tensor
    tap: Tap
    scene: Scene
    shape: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.activation) + 1

    @property
    def size(self) -> tuple[float, ...]:  # type: ignore[override]
        """One cell of the layer."""
        return tuple(float(stride) for stride in self.scene.geometry(self.tap).stride)

    def weights(self, index: int, like: Tensor) -> Tensor:
        """One channel between its minimum (0) and its maximum (1); 0 where it is constant."""
        if index == len(self.activation):
            return like.new_zeros(self.shape)
        channel = self.scene.on_image(self.tap, self.activation[index : index + 1])[0].to(like)
        low, high = channel.amin(), channel.amax()
        return (channel - low) / (high - low) if high > low else torch.zeros_like(channel)
