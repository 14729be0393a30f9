"""What is read of one image: concepts on its grid, and a layer at cells and at places."""

from __future__ import annotations

import torch
from torch import Tensor

from voxplain.concepts.concept import Concept
from voxplain.concepts.places import (
    RegionOfInterest,
    cell_points,
    is_inside,
    region_of,
    values_at,
)
from voxplain.engine.cohort import CohortCase
from voxplain.engine.observation import Observation
from voxplain.engine.taps import Tap
from voxplain.errors import InputError

_CHANNELS_AT_ONCE, _CELLS_AT_ONCE = 8, 1 << 20


def mask_of(concept: Concept, case: CohortCase) -> Tensor | None:
    """The mask ``(*spatial)`` of a concept, or its value ``()`` for the image; None if unknown.

    Raises:
        InputError: If the mask lies on another grid than the image.
    """
    mask = concept.of(case)
    if mask is None:
        return None
    shape = () if concept.kind == "image" else case.image.grid.shape
    if tuple(mask.shape) != tuple(shape):
        raise InputError(
            f"concept {concept.name!r} of case {case.id!r} has the shape {tuple(mask.shape)} where "
            f"{tuple(shape)} is needed; bring it to the grid of the image"
        )
    return mask.cpu().float()


def cells_inside(
    seen: Observation, tap: Tap, case: CohortCase, inside: Tensor
) -> tuple[Tensor, Tensor]:
    """Numbers ``(N,)`` and places ``(N, rank)`` in voxels of the cells in a region.

    Raises:
        InputError: If no cell lies in it.
    """
    numbers, points = [], []
    for some in torch.split(torch.arange(seen[tap][0].numel()), _CELLS_AT_ONCE):
        places = cell_points(seen.layers, tap, some)
        chosen = is_inside(inside, places)
        numbers.append(some[chosen])
        points.append(places[chosen])
    if not sum(map(len, numbers)):
        raise InputError(
            f"case {case.id!r}: no cell of layer {tap.path!r} lies in the region of interest; "
            "choose an earlier layer or a larger region"
        )
    return torch.cat(numbers), torch.cat(points)


def activations_at(seen: Observation, tap: Tap, points: Tensor) -> Tensor:
    """Activations of a layer at places of the image, ``(N, K)``; windows are blended.

    Args:
        seen: The image.
        tap: The layer.
        points: ``(N, rank)`` in voxels; whole numbers for a network with windows.
    """
    geometry = seen.layers.placed_geometry(tap)
    if seen.layers.layout is None:
        cells = (points - torch.tensor(geometry.start)) / torch.tensor(geometry.stride)
        return values_at(seen[tap], cells)
    index = tuple(points.long().T)
    parts = [
        seen.on_image(tap, slice(first, first + _CHANNELS_AT_ONCE))[(slice(None), *index)]
        for first in range(0, len(seen[tap]), _CHANNELS_AT_ONCE)
    ]
    return torch.cat(parts).T


def image_vector(seen: Observation, tap: Tap, case: CohortCase, region: RegionOfInterest) -> Tensor:
    """The mean ``(K,)`` of a layer over its cells in a region; of all where it has no places."""
    flat = seen[tap].flatten(1)
    if seen.layers.placed_geometry(tap).spatial:
        numbers, _ = cells_inside(seen, tap, case, region_of(case, region))
        flat = flat[:, numbers.to(flat.device)]
    return flat.mean(dim=1).float().cpu()
