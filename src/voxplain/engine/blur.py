"""Gaussian blur of images of any rank, on any device, by one small matrix per axis."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from voxplain.errors import ConfigError
from voxplain.preprocess.resample import along_axes

_REACH = 5.0
"""Radius of the kernel in standard deviations; e^-12.5 is below the rounding of float32."""


def isotropic_sigma(
    fraction: float, shape: Sequence[int], spacing: Sequence[float] | None
) -> tuple[float, ...]:
    """Sigma in voxels per axis: a fraction of the shortest axis, isotropic in mm if known.

    Axes of size one are ignored, as there is nothing to blur along them.

    Args:
        fraction: Of the length of the shortest axis.
        shape: Spatial shape.
        spacing: Millimeters per voxel, or None.

    Raises:
        ConfigError: If the image has no axis to blur along.
    """
    scale = spacing or [1.0] * len(shape)
    lengths = [size * step for size, step in zip(shape, scale, strict=True) if size > 1]
    if not lengths:
        raise ConfigError("a blur needs an image with spatial axes, and this one has none")
    sigma = fraction * min(lengths)
    return tuple(sigma / step for step in scale)


def blurred(image: Tensor, sigma: Sequence[float]) -> Tensor:
    """The image convolved with a Gaussian; beyond the edge, the edge value is repeated.

    Args:
        image: ``(..., *spatial)``, floating point.
        sigma: Voxels per spatial axis; 0 leaves an axis as it is.
    """
    sizes = image.shape[image.ndim - len(sigma) :]
    matrices = [
        _matrix(size, width).to(image) if size > 1 and width > 0 else None
        for size, width in zip(sizes, sigma, strict=True)
    ]
    return along_axes(image, matrices)


def _matrix(size: int, sigma: float) -> Tensor:
    """``(size, size)`` in float64, rows sum to 1."""
    reach = math.ceil(_REACH * sigma)
    offsets = torch.arange(-reach, reach + 1)
    kernel = torch.exp(-0.5 * (offsets.double() / sigma) ** 2)
    kernel = kernel / kernel.sum()
    columns = (torch.arange(size)[:, None] + offsets).clamp(0, size - 1)
    rows = torch.zeros(size, size, dtype=torch.float64)
    return rows.scatter_add_(1, columns, kernel.expand(size, -1))
