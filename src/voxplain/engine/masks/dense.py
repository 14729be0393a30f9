"""Masks with a weight at every voxel: random grids, activations of a layer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from voxplain.engine.context import Context
from voxplain.engine.masks.channel_groups import Groups
from voxplain.engine.masks.masks import Masks, Painter
from voxplain.engine.taps import Tap


class DenseMasks(Masks):
    """Masks that are computed when they are needed, from a compact representation."""

    @abstractmethod
    def weights(self, index: int, like: Tensor) -> Tensor:
        """One mask, ``(*spatial)`` in [0, 1], of the type and on the device of ``like``."""

    def painter(self, image: Tensor, filled: Tensor) -> Painter:
        return _BlendingPainter(self, image, filled)

    def removed(self, index: int) -> Tensor:
        """The voxels with a weight below 1/2."""
        return self.weights(index, torch.zeros(1)) < 0.5

    def identities(self) -> Sequence[object]:
        """A key per mask, equal for equal masks."""
        return range(len(self))

    def summed(self, values: Tensor) -> Tensor:
        """Per voxel the sum of the values ``(n,)`` times the weights of the masks."""
        total, like = torch.zeros(self.shape).double(), torch.zeros(1).double()
        for index, value in enumerate(values.tolist()):
            total.add_(self.weights(index, like), alpha=value)
        return total


class _BlendingPainter(Painter):
    """Blends image and fill by the weights of the mask."""

    def __init__(self, masks: DenseMasks, image: Tensor, filled: Tensor) -> None:
        super().__init__(image, filled)
        self._masks = masks

    def identities(self) -> Sequence[object]:
        return self._masks.identities()

    def paint(self, row: int, canvas: Tensor, index: int) -> None:
        weights = self._masks.weights(index, canvas).expand_as(self.image)
        torch.lerp(self.filled, self.image, weights, out=canvas)

    def reset(self, rows: int) -> None:
        """Rows are always overwritten completely."""


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

    def extent(self) -> tuple[float, ...]:
        """The size of a cell."""
        return tuple(float(side) for side in self.cell)

    def weights(self, index: int, like: Tensor) -> Tensor:
        """The interpolated grid, one axis after the other."""
        mask = self.grids[index].to(like)
        for axis in range(len(self.shape)):
            mask = self._interpolated(axis, mask, int(self.shifts[index, axis]))
        return mask

    def summed(self, values: Tensor) -> Tensor:
        """Per voxel the sum of the values ``(n,)`` times the weights of the masks.

        Grids with the same shift along an axis are summed before they are interpolated along it,
        so that only a few grids are interpolated to the size of the image.
        """
        scaled = self.grids.double() * values.double().view(-1, *(1,) * len(self.shape))
        sums: dict[tuple[int, ...], Tensor] = {}
        for grid, shift in zip(scaled, self.shifts.tolist(), strict=True):
            _add(sums, tuple(shift), grid)
        for axis in reversed(range(len(self.shape))):
            wider: dict[tuple[int, ...], Tensor] = {}
            for shift, grid in sums.items():
                _add(wider, shift[:axis], self._interpolated(axis, grid, shift[axis]))
            sums = wider
        return sums[()]

    def _interpolated(self, axis: int, mask: Tensor, shift: int) -> Tensor:
        """The mask interpolated along one axis, shifted and cropped to the image."""
        matrix = _upsampling_matrix(self.grids.shape[axis + 1], self.cell[axis]).to(mask)
        cropped = matrix[shift : shift + self.shape[axis]]
        lines: Tensor = torch.tensordot(cropped, mask, dims=([1], [axis]))
        return lines.movedim(0, axis)


def _add(sums: dict[tuple[int, ...], Tensor], key: tuple[int, ...], value: Tensor) -> None:
    sums[key] = sums[key] + value if key in sums else value


@lru_cache(maxsize=64)
def _upsampling_matrix(cells: int, cell: int) -> Tensor:
    """Linear interpolation of cells to a grid of one more cell, ``((cells + 1) * cell, cells)``."""
    if cells == 1:
        return torch.ones(2 * cell, 1)
    identity = torch.eye(cells)[:, None]
    size = (cells + 1) * cell
    return functional.interpolate(identity, size=size, mode="linear", align_corners=False)[:, 0].T


@dataclass(frozen=True, eq=False)
class ActivationMasks(DenseMasks):
    """Channels of a layer on the image grid, each scaled to [0, 1]; the last mask removes all.

    Attributes:
        activation: ``(n, *cells)``; of windowed networks ``(n, windows, *cells)``.
        groups: The channels of the layer that are summed in each of them.
        tap: The layer.
        context: Of the network and the image.
        shape: Spatial shape of the image.
        remark: A sentence for readers of the map, or None.
    """

    activation: Tensor
    groups: Groups
    tap: Tap
    context: Context
    shape: tuple[int, ...]
    remark: str | None = None

    def __len__(self) -> int:
        return len(self.activation) + 1

    def extent(self) -> tuple[float, ...]:
        """The size of a cell of the layer."""
        return tuple(abs(float(stride)) for stride in self.context.layers.geometry(self.tap).stride)

    def identities(self) -> Sequence[object]:
        """One key per channel; constant channels remove everything, as the last mask does."""
        return [n if varies else "nothing" for n, varies in enumerate(self._varies)]

    def weights(self, index: int, like: Tensor) -> Tensor:
        """One channel scaled from its minimum (0) to its maximum (1); 0 if it is constant."""
        if not self._varies[index]:
            return like.new_zeros(self.shape)
        values = self.activation[index : index + 1]
        removed = float(values.amin())  # where the layer has no cells
        channel = self.context.layers.on_image(self.tap, values, outside=removed)[0].to(like)
        low, high = channel.amin(), channel.amax()
        return (channel - low) / (high - low) if high > low else torch.zeros_like(channel)

    @cached_property
    def _varies(self) -> list[bool]:
        flat = self.activation.flatten(1)
        return [*(flat.amax(dim=1) > flat.amin(dim=1)).tolist(), False]
