"""Supervoxels: compact regions of similar intensity, of equal size in millimeters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from voxplain.extents import PositiveExtent, resolve
from voxplain.image import Image
from voxplain.regions.map import RegionMap
from voxplain.regions.spec import Regions, Spacing
from voxplain.regions.working import WorkingGrid

_NEARLY_CUBIC = 1.5
_NEARLY_A_GRID = 10.0
_VOXELS = 128**3


class Supervoxels(Regions):
    """Simple linear iterative clustering (Achanta et al., 2012) in millimeters, in 2-D and 3-D.

    Channels are scaled to [0, 1] between their 0.5 % and 99.5 % quantiles and have equal weight.
    Where noise would leave less than half of the regions, compactness is raised. Images of more
    than 2 million voxels are divided on a coarser grid.

    Attributes:
        count: Approximate number of regions.
        size: Side of a region as an extent, instead of a count.
        compactness: Weight of distance against intensity: 1 is nearly a grid, 0.01 follows every
            edge.
    """

    kind: Literal["supervoxels"] = "supervoxels"
    count: int = Field(default=100, ge=1, description="about how many")
    size: PositiveExtent | None = Field(
        default=None, description="side of one, in place of a count"
    )
    compactness: float = Field(default=0.2, gt=0, description="distance against intensity")

    def divide(self, image: Tensor, spacing: Spacing, scan: Image | None) -> RegionMap:
        """The supervoxels of ``(C, *spatial)``."""
        shape = tuple(image.shape[1:])
        count = self.expected(shape, len(image), spacing)
        # scikit-image places its seeds at equal distances in voxels, so thick slices are resampled
        # to cubic voxels for regions of equal sides in millimeters.
        grid = WorkingGrid.over(shape, spacing, min(_VOXELS, math.prod(shape)), _NEARLY_CUBIC)
        labels = clustered(grid.bring(scaled(image)).numpy(), count, self.compactness)
        return RegionMap.compacted(grid.back(torch.from_numpy(labels)).to(image.device))

    def expected(self, shape: Sequence[int], channels: int, spacing: Spacing = None) -> int:
        """The count, or the number of voxels divided by that of a region."""
        voxels = math.prod(shape)
        if self.size is None:
            return min(self.count, voxels)
        sides = [max(1, side) for side in resolve(self.size, shape, spacing)]
        per_region = math.prod(min(pair) for pair in zip(sides, shape, strict=True))
        return max(1, round(voxels / per_region))


def scaled(image: Tensor) -> Tensor:
    """``(C, *spatial)`` on the CPU, each channel in [0, 1] between its quantiles 0.5 and 99.5 %.

    A channel with equal quantiles is scaled by its minimum and maximum, so that a small object on
    a constant background is kept.
    """
    flat = image.detach().to("cpu", torch.float32).flatten(1).numpy()
    low, high = np.quantile(flat, [0.005, 0.995], axis=1, keepdims=True)
    is_constant = low >= high
    low = np.where(is_constant, flat.min(axis=1, keepdims=True), low)
    high = np.where(is_constant, flat.max(axis=1, keepdims=True), high)
    span = np.where(high > low, high - low, 1)
    values = np.clip((flat - low) / span, 0, 1).astype(np.float32)
    return torch.from_numpy(values).view(image.shape)


def clustered(
    values: NDArray[np.floating[Any]], count: int, compactness: float, rounds: int = 10
) -> NDArray[np.int64]:
    """Labels ``(*spatial)`` of about ``count`` regions of ``(C, *spatial)`` on cubic voxels.

    Noise splits regions into pieces, which scikit-image merges with others; compactness is doubled
    until at least half of the regions are left.
    """
    labels = _slic(values, count, compactness, rounds)
    while len(np.unique(labels)) < count / 2 and compactness < _NEARLY_A_GRID:
        compactness *= 2
        labels = _slic(values, count, compactness, rounds)
    return labels


def _slic(
    values: NDArray[np.floating[Any]], count: int, compactness: float, rounds: int
) -> NDArray[np.int64]:
    from skimage.segmentation import slic

    labels = slic(
        np.moveaxis(values, 0, -1).astype(np.float32),
        n_segments=min(count, math.prod(values.shape[1:])),
        # Squared differences are summed over channels; this makes them a mean.
        compactness=compactness * math.sqrt(len(values)),
        max_num_iter=rounds,
        convert2lab=False,
        start_label=0,
        channel_axis=-1,
    )
    return np.asarray(labels, dtype=np.int64)
