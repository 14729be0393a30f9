"""Removed voxels guessed from the ones around them, for the fill ``noise``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from voxplain.attribution.masking.masks import Masks, Painter, Region, inside

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
    """

    def __init__(self, masks: Masks, image: Tensor, empty: Tensor, noise: Tensor) -> None:
        super().__init__(image, empty)
        self._masks, self._noise = masks, noise
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
        guess = torch.where(removed, imputed(image, removed) + self._noise[place], image)
        gone = removed.flatten(1).all(dim=1).view(-1, *(1,) * (image.ndim - 1))
        guess = torch.where(gone, self.filled[place], guess)
        canvas[place] = torch.lerp(guess, image, weights)

    def forget(self, rows: int) -> None:
        """Every mask is painted anew anyway."""


def imputed(image: Tensor, removed: Tensor) -> Tensor:
    """Every removed voxel is the weighted mean of its neighbors, removed ones included.

    Neighbors are the voxels that touch it, weighted by one over the squared distance (Rong et
    al., "A consistent and efficient evaluation strategy for attribution methods", 2022, where
    they are 1/6 and 1/12 in 2-D). The linear system is solved by conjugate gradients.

    Args:
        image: ``(C, *spatial)``.
        removed: Bool, of the same shape. A channel of which nothing is left becomes 0.
    """
    kept = ~removed
    axes = tuple(range(1, image.ndim))
    count = kept.sum(dim=axes, keepdim=True).clamp_min(1)
    middle = (image * kept).sum(dim=axes, keepdim=True) / count
    known = torch.where(kept, image - middle, 0)
    degree = _neighbors(torch.ones_like(image[:1]))

    def system(values: Tensor) -> Tensor:
        return torch.where(removed, degree * values - _neighbors(values), 0)

    wanted = torch.where(removed, _neighbors(known), 0)
    found = _solved(system, wanted, axes)
    return torch.where(removed, found + middle, image)


def _solved(system: Callable[[Tensor], Tensor], wanted: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Conjugate gradients, every channel on its own."""
    found, rest = torch.zeros_like(wanted), wanted.clone()
    direction, size = rest.clone(), (rest * rest).sum(dim=axes, keepdim=True)
    enough = _TOLERANCE**2 * size
    for _ in range(_MOST_STEPS):
        if bool((size <= enough).all()):
            break
        turned = system(direction)
        step = _ratio(size, (direction * turned).sum(dim=axes, keepdim=True))
        found += step * direction
        rest -= step * turned
        before, size = size, (rest * rest).sum(dim=axes, keepdim=True)
        direction = rest + _ratio(size, before) * direction
    return found


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """0 where there is nothing left to divide by."""
    return torch.where(below > 0, above / below.clamp_min(torch.finfo(below.dtype).tiny), 0)


def _neighbors(values: Tensor) -> Tensor:
    """Sum of the neighbors of each voxel ``(C, *spatial)``, each over its squared distance.

    Part number k is the sum over neighbors that differ along k axes.
    """
    parts = [values]
    for axis in range(1, values.ndim):
        moved = [_both_sides(part, axis) for part in parts]
        sums = [part + more for part, more in zip(parts[1:], moved[:-1], strict=True)]
        parts = [values, *sums, moved[-1]]
    total = parts[1]
    for squared, part in enumerate(parts[2:], start=2):
        total = total + part / squared
    return total


def _both_sides(values: Tensor, axis: int) -> Tensor:
    """The sum of both neighbors along an axis; beyond the border there is none."""
    length = values.shape[axis]
    found = torch.zeros_like(values)
    if length > 1:
        found.narrow(axis, 1, length - 1).add_(values.narrow(axis, 0, length - 1))
        found.narrow(axis, 0, length - 1).add_(values.narrow(axis, 1, length - 1))
    return found


def _grown(box: Region, shape: tuple[int, ...]) -> Region:
    """With the neighbors of what is inside."""
    return tuple(
        slice(max(0, side.start - 1), min(length, side.stop + 1))
        if side.stop > side.start
        else side
        for side, length in zip(box, shape, strict=True)
    )
