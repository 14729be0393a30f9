"""Label masks in, checked against the grid of the image they belong to."""

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
    """Reads integer labels onto the grid of an image.

    A mask whose axes are only permuted or flipped against the image is put in order. In pictures,
    black and white stand for 0 and 1.

    Args:
        path: NIfTI, DICOM, picture or NumPy file with one channel.
        grid: The source grid of the image.
        resample: Bring a mask on another grid to this one, by its nearest voxel.

    Returns:
        ``(*spatial)`` int64.

    Raises:
        InputError: If the mask has several channels, values that are no labels, or another grid.
    """
    path = Path(path)
    if path.name.lower().endswith(PICTURE) and path.exists():
        labels, own = read_indices(path).astype(np.float64), None
    else:
        raw = read_raw(path, None, grid.rank, None)
        if len(raw.data) != 1:
            raise InputError(f"{path.name} has {len(raw.data)} channels, and a mask has one")
        labels, own = raw.data[0], raw.grid
    if (labels != np.round(labels)).any():
        raise InputError(f"{path.name} holds fractions, and a mask holds whole labels")
    placed = _placed(path, labels, own, grid, resample)
    return torch.from_numpy(np.ascontiguousarray(placed.astype(np.int64)))


def _placed(
    path: Path, labels: NDArray[np.floating], own: Grid | None, grid: Grid, resample: bool
) -> NDArray[np.floating]:
    placeless = own is None or "pixel" in (own.unit, grid.unit)
    if labels.shape == grid.shape and (placeless or own.matches(grid)):  # type: ignore[union-attr]
        return labels
    if own is None or placeless:
        raise InputError(
            f"the mask {path.name} has shape {labels.shape}, and the image {grid.shape}; without a "
            "physical size it cannot be resampled"
        )
    transform = _to_own_index(grid, own)
    if not resample and not _only_reorders(transform, grid, own):
        raise InputError(
            f"the mask {path.name} is on another grid than the image ({own}; image {grid}); "
            "resample=True brings it there by the nearest voxel"
        )
    from scipy.ndimage import affine_transform

    matrix, offset = transform[:, :-1], transform[:, -1]
    moved: NDArray[np.floating] = affine_transform(
        labels, matrix, offset, output_shape=grid.shape, order=0, mode="grid-constant"
    )
    return moved


def _to_own_index(grid: Grid, own: Grid) -> NDArray[np.float64]:
    """The affine map ``(rank, rank + 1)`` from an index of ``grid`` to one of ``own``."""
    whole = np.linalg.inv(own.affine) @ grid.affine
    return np.asarray(whole[[*range(grid.rank)]][:, [*range(grid.rank), 3]])


def _only_reorders(transform: NDArray[np.float64], grid: Grid, own: Grid) -> bool:
    matrix, offset = transform[:, :-1], transform[:, -1]
    whole = np.abs(transform - np.round(transform)).max() < 1e-3
    permutes = np.allclose(np.abs(matrix).round() @ np.ones(grid.rank), 1)
    ends = np.sort(np.stack([offset, matrix @ (np.array(grid.shape) - 1) + offset]), axis=0)
    covers = np.allclose(ends, [np.zeros(grid.rank), np.array(own.shape) - 1], atol=0.01)
    return bool(whole and permutes and covers)
