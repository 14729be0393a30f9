"""Removed voxels guessed from the ones around them, for the fill ``noise``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from voxplain.engine.masks.masks import Masks, Painter, Region, inside

_TOLERANCE = 1e-5
"""Of the residual, relative to the right-hand side: far below the noise that is added."""
_MOST_STEPS = 500


class Imputing(Painter):
    """Solves for what each mask removes; the guess depends on what is left around it.

    A voxel of which less than half is kept counts as removed, so that masks that fade have a
    rest to guess from.

    Args:
        masks: What is removed.
        image: ``(C, *spatial)``.
        empty: The image of which nothing is left.
        noise: What is added to every guess, ``(C, *spatial)``.
        spacing: Millimeters per voxel; None where unknown.
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
        # Nothing equals NaN, so that no mask is thought to change nothing.
        self._plain = masks.painter(image, torch.full_like(image, float("nan")))

    def identities(self) -> Sequence[object]:
        """Equal masks leave equal guesses."""
        return self._plain.identities()

    def paint(self, row: int, canvas: Tensor, index: int) -> None:
        """Solves inside the box around what is removed."""
        canvas.copy_(self.image)
        around = _grown(self._masks.box(index), self._masks.shape)
        if any(side.stop <= side.start for side in around):
            return
        place = inside(around)
        image = self.image[place]
        weights = self._masks.weights(index, canvas)[place].expand_as(image)
        removed = weights < 0.5
        guess = imputed(image, removed, self._spacing)
        guess = torch.where(removed, guess + self._noise[place], image)
        gone = removed.flatten(1).all(dim=1).view(-1, *(1,) * (image.ndim - 1))
        guess = torch.where(gone, self.filled[place], guess)
        canvas[place] = torch.lerp(guess, image, weights)

    def forget(self, rows: int) -> None:
        """Every mask is painted anew anyway."""


def imputed(image: Tensor, removed: Tensor, spacing: tuple[float, ...] | None = None) -> Tensor:
    """Every removed voxel is the weighted mean of its neighbors, removed ones included.

    Neighbors are the voxels that touch it, weighted by one over the squared distance (Rong et
    al., "A consistent and efficient evaluation strategy for attribution methods", 2022, where
    they are 1/6 and 1/12 on square pixels). The linear system is solved by conjugate gradients.

    Args:
        image: ``(C, *spatial)``.
        removed: Bool, of the same shape. A channel of which nothing is left becomes 0.
        spacing: Millimeters per voxel; cubes of any size where unknown.
    """
    kept = ~removed
    axes = tuple(range(1, image.ndim))
    count = kept.sum(dim=axes, keepdim=True).clamp_min(1)
    middle = (image * kept).sum(dim=axes, keepdim=True) / count
    lattice = _Lattice(image, removed, spacing or (1.0,) * (image.ndim - 1))
    wanted = lattice.neighbors(torch.where(kept, image - middle, 0)) * lattice.removed
    return torch.where(removed, _solved(lattice, wanted) + middle, image)


class _Lattice:
    """Sums over neighbors, in buffers that are used again: fresh memory would cost more.

    Args:
        image: ``(C, *spatial)``, for shape and type.
        removed: Bool, of the same shape.
        spacing: Size of a voxel.
    """

    def __init__(self, image: Tensor, removed: Tensor, spacing: tuple[float, ...]) -> None:
        self._last = len(spacing) - 1
        self._weights = _weights(spacing)
        self._along = torch.empty_like(image)
        self._sums = [torch.empty_like(image) for _ in range(1 << self._last)]
        self._product = torch.empty_like(image)
        self.removed = removed.to(image)
        self._degree = self.neighbors(torch.ones_like(image)).clone()

    def neighbors(self, values: Tensor) -> Tensor:
        """Sum of the neighbors of each voxel, each by its weight, until the next call.

        Neighbors along the last axis are added up first. Sum number n then has what is still to
        be moved along the axes that are the bits of n, so that all neighbors of a voxel take a
        step along the last axis, one along the first, and two along the one between.
        """
        _add_both_sides(self._along.zero_(), values, self._last)
        for interpolated, part in enumerate(self._sums):
            torch.mul(self._along, self._weights[interpolated | 1 << self._last], out=part)
            part.add_(values, alpha=self._weights[interpolated])
        for axis in reversed(range(self._last)):
            for interpolated in range(1 << axis):
                _add_both_sides(
                    self._sums[interpolated], self._sums[interpolated | 1 << axis], axis
                )
        return self._sums[0]

    def system(self, values: Tensor) -> Tensor:
        """What the removed voxels lack to be the mean of their neighbors, until the next call.

        Args:
            values: 0 where nothing is removed.
        """
        torch.mul(self._degree, values, out=self._product)
        return self._product.sub_(self.neighbors(values)).mul_(self.removed)


def _weights(spacing: tuple[float, ...]) -> list[float]:
    """One over the squared distance of neighbors that differ along the axes that are bits of n.

    In units of the shortest side, which makes no difference to means; a voxel is no neighbor of
    its own.
    """
    shortest = min(spacing)
    squares = [(side / shortest) ** 2 for side in spacing]
    apart = [
        sum(square for axis, square in enumerate(squares) if n >> axis & 1)
        for n in range(1 << len(squares))
    ]
    return [0.0, *(1 / squared for squared in apart[1:])]


def _add_both_sides(total: Tensor, values: Tensor, axis: int) -> None:
    """Adds both neighbors along a spatial axis; beyond the border there is none."""
    inner = values.shape[axis + 1] - 1
    total.narrow(axis + 1, 1, inner).add_(values.narrow(axis + 1, 0, inner))
    total.narrow(axis + 1, 0, inner).add_(values.narrow(axis + 1, 1, inner))


def _solved(lattice: _Lattice, wanted: Tensor) -> Tensor:
    """Conjugate gradients, every channel on its own."""
    found, rest = torch.zeros_like(wanted), wanted.clone()
    direction, size = rest.clone(), _dot(rest, rest)
    enough = _TOLERANCE**2 * size
    for _ in range(_MOST_STEPS):
        if bool((size <= enough).all()):
            break
        turned = lattice.system(direction)
        step = _ratio(size, _dot(direction, turned))
        found.addcmul_(direction, step)
        rest.addcmul_(turned, step, value=-1)
        before, size = size, _dot(rest, rest)
        direction.mul_(_ratio(size, before)).add_(rest)
    return found


def _dot(left: Tensor, right: Tensor) -> Tensor:
    """Per channel, ``(C, 1, ..., 1)``."""
    dots = torch.bmm(left.flatten(1)[:, None], right.flatten(1)[:, :, None])
    return dots.view(-1, *(1,) * (left.ndim - 1))


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """0 where there is nothing left to divide by."""
    return torch.where(below > 0, above / below.clamp_min(torch.finfo(below.dtype).tiny), 0)


def _grown(box: Region, shape: tuple[int, ...]) -> Region:
    """With the neighbors of what is inside."""
    return tuple(
        slice(max(0, side.start - 1), min(length, side.stop + 1))
        if side.stop > side.start
        else side
        for side, length in zip(box, shape, strict=True)
    )
