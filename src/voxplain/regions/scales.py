"""Segments of an image at six scales, for methods that search among many of them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from voxplain.errors import without_warnings
from voxplain.regions.cache import RegionCache
from voxplain.regions.segments import Segments, crops_of
from voxplain.regions.spec import Spacing
from voxplain.regions.supervoxels import clustered, scaled
from voxplain.regions.working import WorkingGrid, thick_axes

FELZENSZWALB_SCALES = (50, 100, 150, 250, 500, 1200)
"""Published for pictures of 224 x 224 with values in [-1, 1]."""

SUPERVOXEL_COUNTS = (2000, 1000, 500, 250, 125, 60)
_PIXELS = 224**2
_VOXELS = 96**3
_FINER = 4**2  # enlarging a thumbnail further finds no more segments
_SMOOTHING = 0.8
_SMALLEST = 0.003
_DILATION = 5 / 224
_COMPACTNESS = 0.1
_ROUNDS = 5
_CACHE: RegionCache[Segments] = RegionCache()


def scales(image: Tensor, spacing: Spacing = None) -> Segments:
    """Segments at six scales, each dilated by 2.2 % of the mean side (one voxel at least).

    Pictures are divided as published (Kapishnikov et al., 2019; Felzenszwalb and Huttenlocher,
    2004) on 224 x 224 pixels, or the same number in the proportions of the image; volumes into
    supervoxels of six sizes in millimeters, on at most 96 x 96 x 96 cubic voxels.

    Args:
        image: ``(C, *spatial)``, without added noise.
        spacing: Millimeters per voxel, or None.
    """
    settings = None if spacing is None else tuple(spacing)
    return _CACHE.get(settings, image.float(), lambda: _segments(image, spacing))


def _segments(image: Tensor, spacing: Spacing) -> Segments:
    shape = tuple(image.shape[1:])
    is_flat = len(thick_axes(shape)) == 2
    own = math.prod(shape)
    voxels = min(_PIXELS, _FINER * own) if is_flat else min(_VOXELS, own)
    grid = WorkingGrid.over(shape, spacing, voxels)
    values = (2 * grid.bring(scaled(image), order=3 if is_flat else 1) - 1).clamp(-1, 1).numpy()
    partitions = _pictures(values) if is_flat else _volumes(values)
    radius = max(1.0, _DILATION * math.prod(grid.shape) ** (1 / len(grid.shape)))
    crops = [crop for labels in partitions for crop in crops_of(labels, radius)]
    segments = Segments.of(crops, grid.shape)
    return Segments(grid.back(segments.cells), segments.members)


def _pictures(values: NDArray[np.float32]) -> list[NDArray[np.int64]]:
    from skimage.segmentation import felzenszwalb

    pixels = np.moveaxis(values, 0, -1)
    smallest = round(_SMALLEST * math.prod(pixels.shape[:-1]))
    # It warns of any number of channels but three, even if the channel axis is given.
    with without_warnings(RuntimeWarning):
        return [
            felzenszwalb(pixels, scale=scale, sigma=_SMOOTHING, min_size=smallest, channel_axis=-1)
            for scale in FELZENSZWALB_SCALES
        ]


def _volumes(values: NDArray[np.float32]) -> list[NDArray[np.int64]]:
    return [
        clustered((values + 1) / 2, count, _COMPACTNESS, _ROUNDS) for count in SUPERVOXEL_COUNTS
    ]
