"""Reading of label masks onto the grid of an image."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from voxplain.errors import InputError, VoxplainWarning
from voxplain.image import Grid
from voxplain.io.bounds import reading
from voxplain.io.dicom_segmentation import is_segmentation, read_segmentation
from voxplain.io.picture import read_indices
from voxplain.io.read import PICTURE, read_raw

Labels = NDArray[np.int64]

_ROUNDING = 1e-5
"""Relative error of a 32-bit float that was scaled, such as by the slope of a NIfTI header."""
_FLOAT32_INTEGERS = 2**24
_IGNORE = 255


def read_mask(
    path: str | Path, grid: Grid, *, resample: bool = False, ignore: int | None = None
) -> Tensor:
    """Integer labels on the grid of an image.

    Axes that are permuted or flipped against the image are reordered. In gray pictures of black
    and white alone these become 0 and 1; every other value of a file is a label as it stands, 255
    included. The labels of a DICOM segmentation are the numbers of its segments.

    Args:
        path: A file of any kind that images have, with one channel, or a DICOM segmentation.
        grid: The source grid of the image.
        resample: Whether a mask on another grid is resampled by nearest voxel.
        ignore: The label that the caller leaves out; it stays as it stands in every picture.

    Returns:
        ``(*spatial)`` int64.

    Raises:
        InputError: If the mask has several channels, values that are no labels, labels below 0, or
            another grid.
    """
    path = Path(path)
    with reading(path):
        if path.is_file() and is_segmentation(path):
            return torch.from_numpy(read_segmentation(path, grid))
        labels, mask_grid = _read(path, grid.rank, ignore)
        return torch.from_numpy(
            np.ascontiguousarray(_placed(path, labels, mask_grid, grid, resample))
        )


def read_labels(path: str | Path, rank: int) -> Labels:
    """The labels of a file as they lie in it, ``(*spatial)``.

    Raises:
        InputError: If the file has several channels, values that are no labels, or labels below 0.
    """
    path = Path(path)
    with reading(path):
        return _read(path, rank)[0]


def grid_of_mask(path: str | Path, rank: int) -> Grid | None:
    """The grid of a file with labels; None where it states no place, as pictures do.

    Raises:
        InputError: If the file cannot be read.
    """
    path = Path(path)
    with reading(path):
        if path.name.lower().endswith(PICTURE) or (path.is_file() and is_segmentation(path)):
            return None
        return read_raw(path, None, rank, None).grid


def _read(path: Path, rank: int, ignore: int | None = None) -> tuple[Labels, Grid | None]:
    if path.name.lower().endswith(PICTURE) and path.exists():
        labels = _whole(path, read_indices(path, rank, ignore))
        if ignore != _IGNORE:
            _mention_ignore(path, labels)
        return labels, None
    raw = read_raw(path, None, rank, None)
    if len(raw.data) != 1:
        raise InputError(f"{path.name} has {len(raw.data)} channels, and a mask has one")
    return _whole(path, raw.data[0]), raw.grid


def _whole(path: Path, values: NDArray[Any]) -> Labels:
    """The values as integers; floating point only where it can hold them."""
    if values.dtype.kind == "f":
        largest = float(np.abs(values).max())
        if largest >= _FLOAT32_INTEGERS and values.dtype.itemsize <= 4:
            raise InputError(
                f"{path.name} holds labels up to {largest:.10g} as 32-bit floats, which merge "
                "labels above 16777216; save the mask with integers"
            )
        whole = np.round(values)
        if (np.abs(values - whole) > _ROUNDING * np.maximum(1, np.abs(whole))).any():
            raise InputError(f"{path.name} holds fractions, and a mask holds whole labels")
        values = whole
    low, high = values.min(), values.max()
    if low < 0:
        raise InputError(
            f"{path.name} holds negative labels (down to {int(low)}), and a mask holds labels from "
            "0 on; give what is no region the label 0"
        )
    if high > np.iinfo(np.int64).max:
        raise InputError(f"{path.name} holds the label {int(high)}, which is too large")
    return values.astype(np.int64)


def _mention_ignore(path: Path, labels: Labels) -> None:
    """Says that 255 counts as a label where others may have meant voxels to be left out."""
    present = np.unique(labels)
    if len(present) > 2 and present[-1] == _IGNORE and present[-2] < _IGNORE // 2:
        warnings.warn(
            f"{path.name} holds 255 beside labels up to {present[-2]}: it counts as a label of its "
            "own; where it means 'ignore', say so (reference_ignore of a case, ignore of a target)",
            VoxplainWarning,
            stacklevel=2,
        )


def _placed(
    path: Path, labels: Labels, mask_grid: Grid | None, grid: Grid, resample: bool
) -> Labels:
    if mask_grid is None or _without_common_place(labels, mask_grid, grid):
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
    index = _mask_index(transform, grid.shape)
    inside = np.all([(i >= 0) & (i < n) for i, n in zip(index, labels.shape, strict=True)], axis=0)
    clipped = [np.clip(i, 0, n - 1) for i, n in zip(index, labels.shape, strict=True)]
    return np.where(inside, labels[tuple(clipped)], 0)


def _without_common_place(labels: Labels, mask_grid: Grid, grid: Grid) -> bool:
    """Whether one of the two has no size, or no orientation although both have the same shape."""
    unplaced = not (mask_grid.code and grid.code) and labels.shape == grid.shape
    return unplaced or "pixel" in (mask_grid.unit, grid.unit)


def _mask_index(transform: NDArray[np.float64], shape: tuple[int, ...]) -> list[NDArray[np.int64]]:
    """For every voxel of the image the index of the nearest voxel of the mask, per axis."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    moved = np.tensordot(transform[:, :-1], index, axes=1)
    return [
        np.floor(values + offset + 0.5).astype(np.int64)
        for values, offset in zip(moved, transform[:, -1], strict=True)
    ]


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
