"""Sets of voxels on a physical grid: distances, dilations, connected components."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor


def distance(inside: Tensor, spacing: tuple[float, ...]) -> Tensor:
    """Millimeters from every voxel to the nearest one inside, ``(*spatial)`` float64."""
    outside = ~inside.cpu().numpy()
    return torch.from_numpy(ndimage.distance_transform_edt(outside, sampling=spacing))


def dilated(inside: Tensor, radius: float, spacing: tuple[float, ...]) -> Tensor:
    """All voxels at most ``radius`` millimeters from the set, ``(*spatial)`` bool."""
    return (distance(inside, spacing) <= radius).to(inside.device)


def components(inside: Tensor) -> tuple[NDArray[Any], int]:
    """Connected components, diagonals included: labels from 1, and how many there are."""
    array = inside.cpu().numpy()
    labels, count = ndimage.label(array, structure=np.ones((3,) * array.ndim))
    return labels, int(count)
