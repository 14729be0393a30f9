"""Ranks overlapping segments by the attribution that each adds (Kapishnikov et al., 2019)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from voxplain.regions import Segments

Mode = Literal["full", "fast"]
_Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Ranked:
    """A map in regions, and their order.

    Attributes:
        map: ``(*spatial)`` float64: on every voxel the mean attribution of its region.
        ranks: ``(*spatial)`` int64: 1 is the region of the largest mean; what no region covers is
            the last.
    """

    map: Tensor
    ranks: Tensor

    def listed(self, most: int) -> list[dict[str, float]]:
        """Rank, value and voxels of the first regions, for a sidecar."""
        ranks = self.ranks.flatten()
        voxels = torch.bincount(ranks)
        values = torch.bincount(ranks, self.map.flatten()) / voxels
        return [
            {"rank": rank, "value": float(values[rank]), "voxels": int(voxels[rank])}
            for rank in range(1, min(most + 1, len(voxels)))
            if voxels[rank]
        ]


def rank_segments(map: Tensor, segments: Segments, minimum: int, mode: Mode = "full") -> Ranked:
    """Puts segments together, the best first, until nothing is left to add.

    ``full`` takes again and again the segment with the largest mean over the voxels that it newly
    adds; ``fast`` goes through the segments in the order of their own means. A segment that adds
    fewer than ``minimum`` voxels is skipped. Sums are kept per cell of the segments and reduced as
    cells are covered, so that no image is gone through twice.

    Args:
        map: ``(*spatial)``, on the grid of the segments.
        segments: The candidates.
        minimum: Voxels, at least 1.
        mode: How the next segment is found.
    """
    sums, sizes = segments.sums(map), segments.sizes
    order = _greedily if mode == "full" else _by_own_mean
    region = np.full(len(sizes), -1, dtype=np.int64)
    means: list[float] = []
    for added in order(segments, sums, sizes, max(1, minimum)):
        region[added] = len(means)
        means.append(float(sums[added].sum() / sizes[added].sum()))
    left = (region < 0) & (sizes > 0)
    rest = float(sums[left].sum() / sizes[left].sum()) if left.any() else 0.0
    ranks = np.empty(len(means) + 1, dtype=np.int64)
    ranks[np.argsort(-np.array(means), kind="stable")] = np.arange(1, len(means) + 1)
    # Index -1, in no region, is the last entry of both.
    ranks[-1] = len(means) + 1
    values = np.array([*means, rest])
    cells = segments.cells
    return Ranked(torch.from_numpy(values[region])[cells], torch.from_numpy(ranks[region])[cells])


def _greedily(
    segments: Segments, sums: _Floats, sizes: _Floats, minimum: int
) -> Iterator[NDArray[np.int64]]:
    """The cells that each segment adds, the largest mean first."""
    rows, columns = segments.members, segments.members.tocsc()
    total, voxels = rows @ sums, rows @ sizes
    covered = np.zeros(len(sizes), dtype=bool)
    while (open_ := voxels >= minimum).any():
        gain = np.where(open_, total / np.maximum(voxels, 1), -np.inf)
        added = _uncovered(segments, int(gain.argmax()), covered)
        covered[added] = True
        part = columns[:, added]
        total, voxels = total - part @ sums[added], voxels - part @ sizes[added]
        yield added


def _by_own_mean(
    segments: Segments, sums: _Floats, sizes: _Floats, minimum: int
) -> Iterator[NDArray[np.int64]]:
    """The cells that each segment adds, in the order of the means of whole segments."""
    rows = segments.members
    voxels = rows @ sizes
    mean = np.where(voxels > 0, (rows @ sums) / np.maximum(voxels, 1), -np.inf)
    covered = np.zeros(len(sizes), dtype=bool)
    for segment in np.argsort(-mean, kind="stable"):
        added = _uncovered(segments, int(segment), covered)
        if sizes[added].sum() >= minimum:
            covered[added] = True
            yield added


def _uncovered(segments: Segments, segment: int, covered: NDArray[np.bool_]) -> NDArray[np.int64]:
    starts = segments.members.indptr
    cells: NDArray[np.int64] = segments.members.indices[starts[segment] : starts[segment + 1]]
    return cells[~covered[cells]]
