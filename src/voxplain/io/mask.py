"""Reading of label masks onto the grid of an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from voxplain.errors import InputError
from voxplain.image import Grid
from voxplain.io.picture import read_indices
from voxplain.io.read import PICTURE, read_raw


def read_mask(path: str | Path, grid: Grid, *, resample: bool = False) -> Tensor:
    """Integer labels on the grid of an image.

    Axes that are permuted or flipped against the image are reordered. In pictures, black and white
    become 0 and 1.

    Args:
        path: NIfTI, DICOM, picture or NumPy file with one channel.
        grid: The source grid of the image.
        resample: Whether a mask on another grid is resampled by nearest voxel.

    Returns:
        ``(*spatial)`` int64.

    Raises:
        InputError: If the mask has several channels, values that are no labels, or another grid.
    """
    path = Path(path)
    if path.name.lower().endswith(PICTURE) and path.exists():
        labels, mask_grid = read_indices(path).astype(np.float64), None
    else:
        raw = read_raw(path, None, grid.rank, None)
        if len(raw.data) != 1:
            raise InputError(f"{path.name} has {len(raw.data)} channels, and a mask has one")
        labels, mask_grid = raw.data[0], raw.grid
    if (labels != np.round(labels)).any():
        raise InputError(f"{path.name} holds fractions, and a mask holds whole labels")
    placed = _placed(path, labels, mask_grid, grid, resample)
    return torch.from_numpy(np.ascontiguousarray(placed.astype(np.int64)))


def _placed(
    path: Path, labels: NDArray[np.floating], mask_grid: Grid | None, grid: Grid, resample: bool
) -> NDArray[np.floating]:
    if mask_grid is None or "pixel" in (mask_grid.unit, grid.unit):
        if labels.shape == grid.shape:
            return labels
        raise InputError(
            f"the mask {path.name} has shape {labels.shape}, and the image {grid.shape}; without a "
            "physical size it cannot be resampled"
        )
    if mask_grid.matches(grid):
        return labels
    transform = _to_mask_index(grid, mask_grid)
    if not resample and not _only_reorders(transform, grid, mask_grid):
        raise InputError(
            f"the mask {path.name} is on another grid than the image ({mask_grid}; image {grid}); "
            "resample=True brings it there by the nearest voxel"
        )
    from scipy.ndimage import affine_transform

    matrix, offset = transform[:, :-1], transform[:, -1]
    resampled: NDArray[np.floating] = affine_transform(
        labels, matrix, offset, output_shape=grid.shape, order=0, mode="grid-constant"
    )
    return resampled


def _to_mask_index(grid: Grid, mask_grid: Grid) -> NDArray[np.float64]:
    """The affine map ``(rank, rank + 1)`` from voxel indices of the image to those of the mask."""
    transform = np.linalg.inv(mask_grid.affine) @ grid.affine
    return np.asarray(transform[[*range(grid.rank)]][:, [*range(grid.rank), 3]])


def _only_reorders(transform: NDArray[np.float64], grid: Grid, mask_grid: Grid) -> bool:
    """Whether the axes are permuted or flipped, and both grids cover the same voxels."""
    matrix, offset = transform[:, :-1], transform[:, -1]
    is_integer = np.abs(transform - np.round(transform)).max() < 1e-3
    permutes = np.allclose(np.abs(matrix).round() @ np.ones(grid.rank), 1)
    ends = np.sort(np.stack([offset, matrix @ (np.array(grid.shape) - 1) + offset]), axis=0)
    covers = np.allclose(ends, [np.zeros(grid.rank), np.array(mask_grid.shape) - 1], atol=0.01)
    return bool(is_integer and permutes and covers)
