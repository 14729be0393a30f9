"""Many synthesized images side by side as one, each in the cell that it belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from voxplain.image import Grid
from voxplain.synthesis.transforms import through_plane


def mosaic(
    images: Tensor, grid: Grid, cells: Sequence[tuple[int, ...]], background: Tensor
) -> tuple[Tensor, Grid]:
    """Images ``(N, C, *spatial)`` in the cells of a grid of images.

    Of volumes in a grid with two axes, as in an atlas, the middle slices are shown.

    Args:
        images: All of one size.
        grid: Where each lies.
        cells: Place of each in the grid of images.
        background: Of empty cells, ``(C,)``.

    Returns:
        ``(C, *spatial)`` and its grid.
    """
    axes = len(cells[0])
    if grid.rank > axes:
        images, grid = _middle_slices(images, grid)
    counts = [max(cell[axis] for cell in cells) + 1 for axis in range(axes)]
    size = images.shape[2:]
    shape = [count * side for count, side in zip(counts, size, strict=True)]
    empty = background.to(images).view(-1, *(1,) * axes)
    joined = empty.expand(images.shape[1], *shape).clone()
    for image, cell in zip(images, cells, strict=True):
        box = [slice(at * side, (at + 1) * side) for at, side in zip(cell, size, strict=True)]
        joined[(slice(None), *box)] = image
    return joined, replace(grid, shape=tuple(shape))


def _middle_slices(images: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
    thin = [axis for axis, size in enumerate(grid.shape) if size == 1]
    found = through_plane(grid)
    axis = thin[0] if found is None and thin else (found or 0)
    middle = images.select(axis + 2, grid.shape[axis] // 2)
    shape = [size for other, size in enumerate(grid.shape) if other != axis]
    spacing = [step for other, step in enumerate(grid.spacing) if other != axis]
    return torch.as_tensor(middle), Grid.default(shape, spacing)
