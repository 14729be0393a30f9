"""Places in an image: where the cells of a layer lie, and values between the points of a grid."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from voxplain.engine.cohort import CohortCase
from voxplain.engine.network_layers import NetworkLayers
from voxplain.engine.taps import Tap
from voxplain.errors import InputError

RegionOfInterest = Callable[[CohortCase], Tensor]
"""The voxels of a case that count, ``(*spatial)`` of bool on the grid of its image."""


def image_foreground(case: CohortCase) -> Tensor:
    """The voxels that are not constant background in some channel, ``(*spatial)`` of bool."""
    return case.foreground


def region_of(case: CohortCase, region: RegionOfInterest) -> Tensor:
    """The region of interest of a case, ``(*spatial)`` of bool.

    Raises:
        InputError: If it is empty, or lies on another grid than the image.
    """
    inside = region(case).cpu().bool()
    if tuple(inside.shape) != case.image.grid.shape:
        raise InputError(
            f"case {case.id!r}: the region of interest has the shape {tuple(inside.shape)} and the "
            f"image {case.image.grid.shape}; bring it to the grid of the image"
        )
    if not bool(inside.any()):
        raise InputError(f"case {case.id!r}: the region of interest is empty; leave the case out")
    return inside


def cell_points(layers: NetworkLayers, tap: Tap, cells: Tensor) -> Tensor:
    """Where some cells of a layer lie in the image, ``(N, rank)`` in voxels.

    Args:
        layers: Of the network on the image.
        tap: The layer.
        cells: Their numbers ``(N,)`` in the activation ``(K, *cells)`` or, for a network with
            windows, ``(K, windows, *cells)``, in the order of memory.

    Raises:
        ModelError: If the places of the cells cannot be derived.
    """
    geometry, layout = layers.placed_geometry(tap), layers.layout
    count = math.prod(geometry.shape)
    index = torch.stack(torch.unravel_index(cells % count, geometry.shape), dim=1).double()
    points = torch.tensor(geometry.start) + index * torch.tensor(geometry.stride)
    if layout is None:
        return points
    origins = [[side.start for side in layout.box(position)] for position in layout.positions]
    margin = torch.tensor([side.start for side in layout.image_box])
    return points + torch.tensor(origins)[cells // count] - margin


def values_at(field: Tensor, points: Tensor) -> Tensor:
    """Values of a field between the points of its grid, ``(N, K)``, interpolated linearly.

    Args:
        field: ``(K, *grid)``.
        points: ``(N, rank)`` in steps of the grid; those beyond it take the value at its edge.
    """
    shape = torch.tensor(field.shape[1:])
    points = points.clamp(min=0).minimum((shape - 1).double())
    low = points.floor().long()
    fraction = (points - low).to(field.dtype)
    flat, found = field.flatten(1), field.new_zeros(len(points), len(field))
    strides = torch.tensor([math.prod(field.shape[axis + 2 :]) for axis in range(len(shape))])
    for corner in itertools.product((0, 1), repeat=len(shape)):
        side = torch.tensor(corner)
        weight = torch.where(side.bool(), fraction, 1 - fraction).prod(dim=1)
        if not bool(weight.any()):
            continue
        index = ((low + side).minimum(shape - 1) * strides).sum(dim=1)
        found += flat[:, index.to(flat.device)].T * weight[:, None].to(flat.device)
    return found


def is_inside(inside: Tensor, points: Tensor) -> Tensor:
    """Which points ``(N, rank)``, in voxels, lie in a mask ``(*spatial)`` at the nearest voxel."""
    voxels = points.round().long()
    shape = torch.tensor(inside.shape)
    within = ((voxels >= 0) & (voxels < shape)).all(dim=1)
    kept = voxels.clamp(min=0).minimum(shape - 1)
    return within & inside[tuple(kept.T)]
