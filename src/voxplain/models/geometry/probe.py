"""Geometry that could not be derived, held against impulses sent through the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from voxplain.models.geometry.layer import LayerGeometry, even_geometry

_PLACES = 4
"""Impulses per axis."""


def confirmed(
    derived: LayerGeometry, activation: Callable[[Tensor], Tensor], example: Tensor
) -> LayerGeometry | None:
    """The geometry that agrees with what the layer answers to impulses.

    An impulse is a slab of one cell at some place along an axis. Its answer must be strongest
    within half a cell and half a voxel of that place.

    Args:
        derived: The geometry as far as it could be followed.
        activation: The output of the layer for ``(1, C, *spatial)``.
        example: ``(1, C, *spatial)``, to which impulses are added.

    Returns:
        The derived geometry; or that of cells which divide the image evenly; None if neither
        agrees, or the layer does not answer.
    """
    rest, image = activation(example), tuple(example.shape[2:])
    even = even_geometry(tuple(rest.shape), image)
    candidates = [one for one in (derived, even) if _fits(one, rest)]
    amplitude = float(example.std()) or 1.0
    for axis, size in enumerate(image):
        if size == 1 or not any(one.shape[axis] > 1 for one in candidates):
            continue
        stride = max(abs(one.stride[axis]) for one in candidates)
        answered = 0
        for begin, end in _slabs(size, max(1, round(stride))):
            slab = torch.zeros_like(example)
            slab.narrow(axis + 2, begin, end - begin).fill_(amplitude)
            answer = activation(example + slab) - rest
            if not answer.any():
                answer = activation(example - slab) - rest
            if answer.any():
                answered += 1
                place = (begin + end - 1) / 2
                candidates = [one for one in candidates if _lies_at(one, answer, axis, place)]
        if answered < _PLACES / 2:
            return None
    return candidates[0] if candidates else None


def _slabs(size: int, width: int) -> Sequence[tuple[int, int]]:
    """First and last voxels (exclusive) of impulses, evenly over an axis."""
    width = min(width, size)
    begins = [round((step + 0.5) * size / _PLACES - width / 2) for step in range(_PLACES)]
    inside = sorted({min(max(begin, 0), size - width) for begin in begins})
    return [(begin, begin + width) for begin in inside]


def _fits(geometry: LayerGeometry, activation: Tensor) -> bool:
    return geometry.spatial and tuple(geometry.as_map(activation).shape[2:]) == geometry.shape


def _lies_at(geometry: LayerGeometry, answer: Tensor, axis: int, place: float) -> bool:
    """Whether an answer is strongest at a place along an axis."""
    if geometry.shape[axis] == 1:
        return True
    energy = geometry.as_map(answer)[0].double().square().movedim(axis + 1, 0).flatten(1).sum(1)
    energy = (energy - energy.amin()).nan_to_num()
    energy = energy.where(energy > energy.amax() / 2, 0)
    if not energy.any():
        return False
    cells = torch.arange(len(energy), dtype=energy.dtype, device=energy.device)
    cell = float((energy * cells).sum() / energy.sum())
    stride = geometry.stride[axis]
    return abs(geometry.start[axis] + stride * cell - place) < (max(1.0, abs(stride)) + 1) / 2
