"""Overlapping segments of an image, stored as the cells of which they consist."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage, sparse
from torch import Tensor

from voxplain.errors import InputError

Crop = tuple[tuple[slice, ...], NDArray[np.bool_]]
"""A segment: its bounding box, and the voxels of the box that belong to it."""


@dataclass(frozen=True, eq=False)
class Segments:
    """Segments that may overlap.

    Voxels that are in exactly the same segments form a cell, so that sums over segments are sums
    over a few thousand cells, independent of the size of the image.

    Attributes:
        cells: int64 ``(*spatial)``, the number of the cell of each voxel.
        members: Sparse ``(segments, cells)``, 1 where the cell belongs to the segment.
    """

    cells: Tensor
    members: Any

    @classmethod
    def of(cls, crops: Sequence[Crop], shape: Sequence[int]) -> Segments:
        """Segments on a grid of this shape, divided into cells.

        Raises:
            InputError: If there is no segment.
        """
        if not crops:
            raise InputError("there is no segment: not one label has a voxel")
        # Each segment has a random number, and their sum over the segments of a voxel identifies
        # its cell: two of 100,000 cells have equal sums of 64 bits with a probability below 1e-9.
        numbers = np.random.default_rng(0).integers(1, 2**63, len(crops), dtype=np.uint64)
        sums = np.zeros(tuple(shape), dtype=np.uint64)
        for (box, inside), number in zip(crops, numbers, strict=True):
            sums[box][inside] += number
        _, flat = np.unique(sums, return_inverse=True)
        cells = flat.reshape(sums.shape).astype(np.int64)
        rows = [np.unique(cells[box][inside]) for box, inside in crops]
        columns = np.concatenate(rows)
        starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
        size = (len(crops), int(cells.max()) + 1)
        members = sparse.csr_matrix((np.ones(len(columns)), columns, starts), shape=size)
        return cls(torch.from_numpy(cells), members)

    @classmethod
    def given(cls, arrays: Any) -> Segments:
        """Segments from arrays, without dilation.

        Args:
            arrays: ``(n, *spatial)``: boolean masks, one per segment; or label maps, in which every
                label from 0 is a segment.

        Raises:
            InputError: If the arrays are neither.
        """
        array = arrays.detach().cpu().numpy() if isinstance(arrays, Tensor) else np.asarray(arrays)
        if array.ndim < 2 or not (array.dtype == bool or np.issubdtype(array.dtype, np.integer)):
            raise InputError(
                f"segments are boolean masks or whole labels (n, *spatial), not {array.dtype} of "
                f"shape {array.shape}"
            )
        if array.dtype == bool:
            whole = tuple(slice(0, length) for length in array.shape[1:])
            crops: list[Crop] = [(whole, mask) for mask in array if mask.any()]
        else:
            crops = [crop for labels in array for crop in crops_of(labels)]
        return cls.of(crops, array.shape[1:])

    @property
    def nbytes(self) -> int:
        """Bytes of cells and members."""
        arrays = (self.members.data, self.members.indices, self.members.indptr)
        return self.cells.nbytes + sum(int(array.nbytes) for array in arrays)

    @property
    def count(self) -> int:
        """Number of segments."""
        return int(self.members.shape[0])

    @cached_property
    def sizes(self) -> NDArray[np.float64]:
        """Voxels per cell, ``(cells,)``."""
        counts = torch.bincount(self.cells.flatten(), minlength=self.members.shape[1])
        return counts.double().numpy()

    def sums(self, values: Tensor) -> NDArray[np.float64]:
        """Sums of ``(*spatial)`` over each cell, ``(cells,)``."""
        weights = values.detach().double().cpu().flatten()
        cells = self.cells.flatten()
        return torch.bincount(cells, weights, minlength=self.members.shape[1]).numpy()


def crops_of(labels: NDArray[np.integer[Any]], radius: float = 0.0) -> Iterator[Crop]:
    """Every label from 0 as a segment, dilated by a ball of this radius in voxels."""
    margin = int(np.ceil(radius))
    # find_objects starts at label 1, so 1 is added; labels below 0 become 0 and are skipped.
    for number, box in enumerate(ndimage.find_objects(np.maximum(labels, -1) + 1)):
        if box is None:
            continue
        wider = tuple(
            slice(max(0, side.start - margin), min(length, side.stop + margin))
            for side, length in zip(box, labels.shape, strict=True)
        )
        inside = labels[wider] == number
        if radius:
            inside = ndimage.distance_transform_edt(~inside) <= radius
        yield wider, inside
