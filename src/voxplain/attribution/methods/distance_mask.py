"""Smooth masks of volumes: the published kernel of a soft distance to the nearest cell.

The smooth maximum of the published operator takes hundreds of values per voxel in 3-D. Here the
mask at a voxel is the same kernel, 1 in a ball and falling off like a Gaussian outside, of the
distance to the nearest cell of the grid; it is cut off at the distance where cells of 0 count as
lying, and cells between 0 and 1 count as lying in between. The soft minimum of squared distances
is the logarithm of a sum of Gaussians, and a Gaussian is a product of one factor per axis: three
products with small matrices give it for all voxels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from voxplain.attribution.methods.extremal_mask import GridMask

_SHARPNESS = 8.0
"""Inverse temperature of the soft minimum, per squared distance in widths of the kernel."""
_PLATEAU = 0.5
"""Radius of the ball in widths of the kernel."""
_FLAT = 0.95
"""The mask at the edge of the ball; inside it rises to 1, so that gradients do not vanish."""
_FAR = 2.2
"""Squared distance that a cell of 0 seems away, and at which masks end."""
_APART = 0.4
"""Distance of nodes in widths of the kernel; between them masks are interpolated linearly."""


class DistanceMask(GridMask["_Axis"]):
    """Smooth masks by the distance to the nearest cell, for three axes or more.

    Args:
        shape: Spatial shape of the masks; axes of size one are ignored.
        cells: Grid cells per axis; fewer where an axis has fewer voxels.
        smoothness: Width of the kernel in grid steps.
        like: A tensor of the type and on the device of the masks.
    """

    pace: ClassVar[float] = 2.0  # masks follow their cells more slowly than the published ones

    def __init__(self, shape: Sequence[int], cells: int, smoothness: float, like: Tensor) -> None:
        self.shape = tuple(shape)
        active = [size for size in shape if size > 1]
        self._axes = [_Axis(size, cells, smoothness, like) for size in active]
        together = math.prod(float(axis.factors.sum(dim=1).amax()) for axis in self._axes)
        self._nearest = -math.log(together) / _SHARPNESS
        self._least = _FLAT * math.exp(-2 * (math.sqrt(_FAR + self._nearest) - _PLATEAU) ** 2)

    def inside(self, padded: Tensor) -> Tensor:
        """Linear between the nodes."""
        masks = _along_axes(padded, [axis.between for axis in self._axes])
        return masks.reshape(-1, *self.shape)

    def padded(self, grid: Tensor) -> Tensor:
        """The kernel of the distance to the nearest cell."""
        near = torch.exp(_SHARPNESS * _FAR * (grid - 1))
        near = _along_axes(near, [axis.factors for axis in self._axes])
        squared = near.clamp_min(1e-30).log() / -_SHARPNESS
        return ((self._kernel(squared) - self._least) / (1 - self._least)).clamp(0, 1)

    def _kernel(self, squared: Tensor) -> Tensor:
        """The kernel of a squared distance in widths: a ball that is nearly flat, and fades."""
        edge = _PLATEAU**2
        beyond = squared.clamp_min(edge).sqrt() - _PLATEAU
        inside = (edge - squared).clamp_min(0) * ((1 - _FLAT) / (edge - self._nearest))
        return _FLAT * torch.exp(-2 * beyond.square()) + inside


class _Axis:
    """One axis: a Gaussian of the distance from each cell to each node, and how nodes are joined.

    Attributes:
        cells: Number of cells.
        apart: Voxels from node to node.
        factors: ``(nodes, cells)``, the Gaussian.
        between: ``(voxels, nodes)``, linear interpolation.
    """

    def __init__(self, size: int, cells: int, smoothness: float, like: Tensor) -> None:
        step = max(1, round(size / cells))
        width = step * smoothness
        self.cells = math.ceil(size / step)
        self.apart = apart = max(1, round(_APART * width))
        margin = math.ceil(width)
        nodes = torch.arange(-margin, size + margin + apart - 1, apart, dtype=torch.float64)
        distance = (nodes[:, None] - step * torch.arange(self.cells)) / width
        self.factors = torch.exp(-_SHARPNESS * distance.square()).to(like)
        away = (torch.arange(size)[:, None] - nodes).abs() / apart
        self.between = (1 - away).clamp_min(0).to(like)


def _along_axes(values: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """``(K, *sizes)``, each axis multiplied by its matrix; the last axis first."""
    for axis in range(len(matrices), 0, -1):
        values = (values.movedim(axis, -1) @ matrices[axis - 1].T).movedim(-1, axis)
    return values
