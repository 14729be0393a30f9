"""Supervoxels: compact regions of similar intensity, of equal size in millimeters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from voxplain.extents import Extent, resolve
from voxplain.image import Image
from voxplain.regions.map import RegionMap
from voxplain.regions.spec import Regions, Spacing

_NEARLY_ISOTROPIC = 1.5
_NEARLY_A_GRID = 10.0


class Supervoxels(Regions):
    """Simple linear iterative clustering (Achanta et al., 2012) in millimeters, in 2-D and 3-D.

    Channels are brought to [0, 1] by their quantiles 0.5 % and 99.5 % and count alike. Where noise
    would leave less than half of the regions, they are made more compact.

    Attributes:
        count: About how many.
        size: Side of one instead, as an extent.
        compactness: Weight of distance against intensity: 1 is nearly a grid, 0.01 follows every
            edge.
    """

    kind: Literal["supervoxels"] = "supervoxels"
    count: int = Field(default=100, ge=1, description="about how many")
    size: Extent | None = Field(default=None, description="side of one, in place of a count")
    compactness: float = Field(default=0.1, gt=0, description="distance against intensity")

    @model_validator(mode="after")
    def _count_or_size(self) -> Supervoxels:
        if self.size is not None and "count" in self.model_fields_set:
            raise ValueError("give either count or size")
        return self

    def divide(self, image: Tensor, spacing: Spacing, scan: Image | None) -> RegionMap:
        """The supervoxels of ``(C, *spatial)``."""
        shape = tuple(image.shape[1:])
        count = self.expected(shape, len(image), spacing)
        labels = supervoxels(scaled(image), spacing, count, self.compactness)
        return RegionMap.compacted(labels.to(image.device))

    def expected(self, shape: Sequence[int], channels: int, spacing: Spacing = None) -> int:
        """The count, or the voxels of the image by those of one region."""
        voxels = math.prod(shape)
        if self.size is None:
            return min(self.count, voxels)
        sides = [max(1, side) for side in resolve(self.size, shape, spacing)]
        one = math.prod(min(pair) for pair in zip(sides, shape, strict=True))
        return max(1, round(voxels / one))


def scaled(image: Tensor) -> Tensor:
    """``(C, *spatial)`` on the CPU, each channel in [0, 1] between its quantiles 0.5 and 99.5 %.

    A channel that is constant between them is scaled by its minimum and maximum, so that a small
    object on an empty ground is not lost.
    """
    flat = image.detach().to("cpu", torch.float32).flatten(1).numpy()
    low, high = np.quantile(flat, [0.005, 0.995], axis=1, keepdims=True)
    flat_channel = low >= high
    low = np.where(flat_channel, flat.min(axis=1, keepdims=True), low)
    high = np.where(flat_channel, flat.max(axis=1, keepdims=True), high)
    span = np.where(high > low, high - low, 1)
    values = np.clip((flat - low) / span, 0, 1).astype(np.float32)
    return torch.from_numpy(values).view(image.shape)


def supervoxels(image: Tensor, spacing: Spacing, count: int, compactness: float) -> Tensor:
    """Labels ``(*spatial)`` of about ``count`` regions of ``(C, *spatial)`` with values in [0, 1].

    Axes of one voxel are left out, so that a volume of one slice is divided as the slice is.
    """
    shape = tuple(image.shape[1:])
    kept = _thick(shape)
    flat = image.reshape(len(image), *(shape[axis] for axis in kept))
    sizes = [1.0 if spacing is None else float(spacing[axis]) for axis in kept]
    return _on_working_grid(flat, sizes, count, compactness).view(shape)


def _thick(shape: tuple[int, ...]) -> list[int]:
    """The axes of more than one voxel; two at least, as a picture has."""
    by_length = sorted(range(len(shape)), key=lambda axis: shape[axis] == 1)
    several = sum(length > 1 for length in shape)
    return sorted(by_length[: max(2, several)])


def _on_working_grid(image: Tensor, sizes: list[float], count: int, compactness: float) -> Tensor:
    """Clusters on nearly cubic voxels.

    The seeds of scikit-image lie on a grid of equal steps in voxels, so that thick slices would
    give regions as much longer as the slices are thicker. Such images are brought to cubic voxels
    of the same volume, and the labels back by nearest voxel.
    """
    shape = tuple(image.shape[1:])
    edge = math.prod(sizes) ** (1 / len(sizes))
    if max(sizes) <= _NEARLY_ISOTROPIC * min(sizes):
        relative = [size / edge for size in sizes]
        return torch.from_numpy(_connected(image, relative, count, compactness))
    working = [max(1, round(n * size / edge)) for n, size in zip(shape, sizes, strict=True)]
    mode = {2: "bilinear", 3: "trilinear"}[len(shape)]
    resized = functional.interpolate(image[None], size=working, mode=mode)[0]
    labels = torch.from_numpy(_connected(resized, [1.0] * len(shape), count, compactness))
    back = functional.interpolate(labels[None, None].double(), size=shape, mode="nearest-exact")
    return back[0, 0].long()


def _connected(
    image: Tensor, sizes: list[float], count: int, compactness: float
) -> NDArray[np.int64]:
    """Enough regions also in noise, which tears them into pieces that then count as one.

    Compactness is doubled until half of what was asked for is left.
    """
    labels = _slic(image, sizes, count, compactness)
    while len(np.unique(labels)) < count / 2 and compactness < _NEARLY_A_GRID:
        compactness *= 2
        labels = _slic(image, sizes, count, compactness)
    return labels


def _slic(image: Tensor, sizes: list[float], count: int, compactness: float) -> NDArray[np.int64]:
    from skimage.segmentation import slic

    values = np.moveaxis(image.double().numpy(), 0, -1)
    labels = slic(
        values,
        n_segments=min(count, math.prod(values.shape[:-1])),
        # Squared differences add up over channels; this makes them a mean.
        compactness=compactness * math.sqrt(len(image)),
        spacing=tuple(sizes),
        convert2lab=False,
        start_label=0,
        channel_axis=-1,
    )
    return np.asarray(labels, dtype=np.int64)
