"""Overlapping segments of an image, kept as the cells that they have in common."""

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
"""A segment: its bounding box, and which voxels inside belong to it."""


@dataclass(frozen=True, eq=False)
class Segments:
    """Segments that may overlap.

    Voxels in exactly the same segments form a cell, so that sums over segments are sums over a few
    thousand cells, however large the image is and however often the segments are used.

    Attributes:
        cells: int64 ``(*spatial)``: the number of the cell of each voxel.
        members: ``(segments, cells)``, 1 where the cell belongs to the segment.
    """

    cells: Tensor
    members: Any

    @classmethod
    def of(cls, crops: Sequence[Crop], shape: Sequence[int]) -> Segments:
        """The cells of segments on a grid of this shape.

        Raises:
            InputError: If there is no segment.
        """
        if not crops:
            raise InputError("there is no segment: not one label has a voxel")
        # The sum of random numbers of the segments of a voxel names its cell: two of some 100,000
        # cells share a sum of 64 bits with a chance below 1e-9.
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
        """Segments as they are, without dilation.

        Args:
            arrays: ``(n, *spatial)``: boolean masks, each a segment; or label maps, of which each
                label from 0 is a segment.

        Raises:
            InputError: If these are neither.
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
        """Voxels per cell."""
        counts = torch.bincount(self.cells.flatten(), minlength=self.members.shape[1])
        return counts.double().numpy()

    def sums(self, map: Tensor) -> NDArray[np.float64]:
        """The sum of a map ``(*spatial)`` over each cell."""
        weights = map.detach().double().cpu().flatten()
        cells = self.cells.flatten()
        return torch.bincount(cells, weights, minlength=self.members.shape[1]).numpy()


def crops_of(labels: NDArray[np.integer[Any]], radius: float = 0.0) -> Iterator[Crop]:
    """Every label from 0 as a segment, dilated by a ball of this radius in voxels."""
    margin = int(np.ceil(radius))
    # Labels of find_objects start at 1; those below 0 are nothing.
    for number, box in enumerate(ndimage.find_objects(np.maximum(labels, -1) + 1)):
        if box is None:
            continue
        wider = tuple(
            slice(max(0, part.start - margin), min(length, part.stop + margin))
            for part, length in zip(box, labels.shape, strict=True)
        )
        inside = labels[wider] == number
        if radius:
            inside = ndimage.distance_transform_edt(~inside) <= radius
        yield wider, inside
