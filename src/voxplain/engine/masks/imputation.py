"""Removed voxels imputed from the surrounding ones, for the fill ``noise``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from voxplain.engine.masks.masks import Masks, Painter, Region, inside

_TOLERANCE = 1e-5
"""Of the residual relative to the right-hand side, far below the noise that is added."""
_MAX_STEPS = 500


class ImputingPainter(Painter):
    """Imputes the removed voxels of each mask from the remaining ones around them.

    A voxel with a weight below 1/2 counts as removed, so that masks that fade everything leave
    voxels to impute from.

    Args:
        masks: The masks.
        image: ``(C, *spatial)``.
        empty: The image with everything removed.
        noise: Added to every imputed voxel, ``(C, *spatial)``.
        spacing: Millimeters per voxel; None if unknown.
    """

    def __init__(
        self,
        masks: Masks,
        image: Tensor,
        empty: Tensor,
        noise: Tensor,
        spacing: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__(image, empty)
        self._masks, self._noise, self._spacing = masks, noise, spacing
        # NaN differs from every value, so no mask counts as changing nothing.
        self._plain = masks.painter(image, torch.full_like(image, float("nan")))

    def identities(self) -> Sequence[object]:
        """Those of the masks, as equal masks give equal images."""
        return self._plain.identities()

    def paint(self, row: int, canvas: Tensor, index: int) -> None:
        """Imputes inside the box of the mask, from the voxels around it."""
        canvas.copy_(self.image)
        around = _dilated(self._masks.box(index), self._masks.shape)
        if any(side.stop <= side.start for side in around):
            return
        box = inside(around)
        image = self.image[box]
        weights = self._masks.weights(index, canvas)[box].expand_as(image)
        removed = weights < 0.5
        imputed = impute(image, removed, self._spacing)
        imputed = torch.where(removed, imputed + self._noise[box], image)
        all_removed = removed.flatten(1).all(dim=1).view(-1, *(1,) * (image.ndim - 1))
        imputed = torch.where(all_removed, self.filled[box], imputed)
        canvas[box] = torch.lerp(imputed, image, weights)

    def reset(self, rows: int) -> None:
        """Rows are always overwritten completely."""


def impute(image: Tensor, removed: Tensor, spacing: tuple[float, ...] | None = None) -> Tensor:
    """The image with each removed voxel as the weighted mean of its neighbors, removed or not.

    Neighbors are the voxels that touch it, weighted by one over the squared distance (Rong et
    al., "A consistent and efficient evaluation strategy for attribution methods", 2022, where
    they are 1/6 and 1/12 on square pixels). The linear system is solved by conjugate gradients.

    Args:
        image: ``(C, *spatial)``.
        removed: Bool, of the same shape. A channel with all voxels removed becomes 0.
        spacing: Millimeters per voxel; None for cubic voxels of any size.
    """
    kept = ~removed
    axes = tuple(range(1, image.ndim))
    count = kept.sum(dim=axes, keepdim=True).clamp_min(1)
    mean = (image * kept).sum(dim=axes, keepdim=True) / count
    lattice = _Lattice(image, removed, spacing or (1.0,) * (image.ndim - 1))
    right_side = lattice.neighbors(torch.where(kept, image - mean, 0)) * lattice.removed
    return torch.where(removed, _solve(lattice, right_side) + mean, image)


class _Lattice:
    """Weighted sums over neighbors, in buffers that are reused, as allocation would cost more.

    Args:
        image: ``(C, *spatial)``, for shape and type.
        removed: Bool, of the same shape.
        spacing: Size of a voxel.
    """

    def __init__(self, image: Tensor, removed: Tensor, spacing: tuple[float, ...]) -> None:
        self._last = len(spacing) - 1
        self._weights = _neighbor_weights(spacing)
        self._along = torch.empty_like(image)
        self._sums = [torch.empty_like(image) for _ in range(1 << self._last)]
        self._product = torch.empty_like(image)
        self.removed = removed.to(image)
        self._degree = self.neighbors(torch.ones_like(image)).clone()

    def neighbors(self, values: Tensor) -> Tensor:
        """Weighted sum of the neighbors of each voxel, valid until the next call.

        Neighbors along the last axis are added first. Sum number n then holds the values that are
        still to be shifted along the axes that are the bits of n, and is added to the sum without
        the highest of these bits after a shift along that axis. In 3-D this takes one shift along
        the last axis, two along the middle one, and one along the first.
        """
        _add_both_sides(self._along.zero_(), values, self._last)
        for bits, partial_sum in enumerate(self._sums):
            torch.mul(self._along, self._weights[bits | 1 << self._last], out=partial_sum)
            partial_sum.add_(values, alpha=self._weights[bits])
        for axis in reversed(range(self._last)):
            for bits in range(1 << axis):
                _add_both_sides(self._sums[bits], self._sums[bits | 1 << axis], axis)
        return self._sums[0]

    def system(self, values: Tensor) -> Tensor:
        """Difference of removed voxels to the mean of their neighbors, valid until the next call.

        Args:
            values: 0 at voxels that are not removed.
        """
        torch.mul(self._degree, values, out=self._product)
        return self._product.sub_(self.neighbors(values)).mul_(self.removed)


def _neighbor_weights(spacing: tuple[float, ...]) -> list[float]:
    """One over the squared distance of neighbors that differ along the axes that are bits of n.

    In units of the shortest side, as only ratios of weights matter; 0 for the voxel itself.
    """
    shortest = min(spacing)
    squares = [(side / shortest) ** 2 for side in spacing]
    squared_distances = [
        sum(square for axis, square in enumerate(squares) if n >> axis & 1)
        for n in range(1 << len(squares))
    ]
    return [0.0, *(1 / squared for squared in squared_distances[1:])]


def _add_both_sides(total: Tensor, values: Tensor, axis: int) -> None:
    """Adds both neighbors along a spatial axis; voxels at the border have one."""
    inner = values.shape[axis + 1] - 1
    total.narrow(axis + 1, 1, inner).add_(values.narrow(axis + 1, 0, inner))
    total.narrow(axis + 1, 0, inner).add_(values.narrow(axis + 1, 1, inner))


def _solve(lattice: _Lattice, right_side: Tensor) -> Tensor:
    """Solution by conjugate gradients, each channel separately."""
    solution, residual = torch.zeros_like(right_side), right_side.clone()
    direction, squared = residual.clone(), _dot(residual, residual)
    tolerance = _TOLERANCE**2 * squared
    for _ in range(_MAX_STEPS):
        if bool((squared <= tolerance).all()):
            break
        product = lattice.system(direction)
        step = _ratio(squared, _dot(direction, product))
        solution.addcmul_(direction, step)
        residual.addcmul_(product, step, value=-1)
        previous, squared = squared, _dot(residual, residual)
        direction.mul_(_ratio(squared, previous)).add_(residual)
    return solution


def _dot(left: Tensor, right: Tensor) -> Tensor:
    """Dot product per channel, ``(C, 1, ..., 1)``."""
    dots = torch.bmm(left.flatten(1)[:, None], right.flatten(1)[:, :, None])
    return dots.view(-1, *(1,) * (left.ndim - 1))


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """The ratio; 0 if the denominator is not positive."""
    return torch.where(below > 0, above / below.clamp_min(torch.finfo(below.dtype).tiny), 0)


def _dilated(box: Region, shape: tuple[int, ...]) -> Region:
    """The box with one more voxel on each side, inside the image; empty sides unchanged."""
    return tuple(
        slice(max(0, side.start - 1), min(length, side.stop + 1))
        if side.stop > side.start
        else side
        for side, length in zip(box, shape, strict=True)
    )
