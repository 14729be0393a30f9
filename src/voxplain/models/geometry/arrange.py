"""Activations of any layout as ``(B, K, *cells)``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

from torch import Tensor

from voxplain.errors import ModelError
from voxplain.models.geometry.layout import BATCH, Atom, CellLayout, Dimension, Tokens, merged


def arrange(activation: Tensor, layout: CellLayout) -> Tensor:
    """An activation with channels first and one dimension per image axis.

    Cells without a place in the image, such as a class token, are dropped.

    Args:
        activation: The output of the layer for any number of images.
        layout: The layout of that layer for an example of the same spatial shape.

    Returns:
        ``(B, K, *cells)``.

    Raises:
        ModelError: If the activation has another layout.
    """
    plan = _plan(layout, tuple(activation.shape))
    for index, dim in enumerate(plan.layout.dims):
        activation = _trim(activation, index, dim)
    return activation.reshape(plan.sizes).permute(plan.order).reshape(plan.shape)


@dataclass(frozen=True)
class _Arrangement:
    """A reshape into factors, a permutation, and a reshape that merges factors."""

    layout: CellLayout
    sizes: tuple[int, ...]
    order: tuple[int, ...]
    shape: tuple[int, ...]


@lru_cache(maxsize=1024)  # called for every tap in every pass
def _plan(layout: CellLayout, activation_shape: tuple[int, ...]) -> _Arrangement:
    layout = _for_images(layout, activation_shape)
    atoms, runs = flat_atoms(layout), cell_runs(layout)
    images = [index for index, atom in enumerate(atoms) if atom.axis == BATCH]
    cells = [index for run in runs for index in run]
    features = [index for index in range(len(atoms)) if index not in {*images, *cells}]
    sizes = tuple(atom.size for atom in atoms)
    groups = (images, features, *runs)
    shape = tuple(math.prod(sizes[index] for index in group) for group in groups)
    return _Arrangement(layout, sizes, (*images, *features, *cells), shape)


def flat_atoms(layout: CellLayout) -> list[Atom]:
    """The factors of all dimensions, in order."""
    return [atom for dim in layout.dims for atom in dim.atoms]


def cell_runs(layout: CellLayout) -> list[list[int]]:
    """Numbers of the factors that cover each image axis without gap or overlap, coarsest first.

    Finer factors that overlap (the content of an unfolded window) are left out.
    """
    atoms = flat_atoms(layout)
    return [_run(atoms, axis) for axis in range(len(layout.start))]


def _run(atoms: Sequence[Atom], axis: int) -> list[int]:
    indices = [index for index, atom in enumerate(atoms) if atom.axis == axis]
    indices.sort(key=lambda index: -abs(atoms[index].stride))
    for count, (outer, inner) in enumerate(pairwise(indices), start=1):
        if len(merged((atoms[outer], atoms[inner]))) == 2:
            return indices[:count]
    return indices


def _for_images(layout: CellLayout, shape: tuple[int, ...]) -> CellLayout:
    """The layout for the number of images in an activation of this shape."""
    if len(shape) == len(layout.dims):
        for index, size in enumerate(shape):
            layout = layout.with_dimension(index, _with_images(layout.dims[index], index, size))
    if layout.shape != shape:
        raise ModelError(
            f"an activation of shape {shape} is not laid out as its layer was on the example, "
            f"{layout.shape}; follow the layer on an input of this size"
        )
    return layout


def _with_images(dim: Dimension, index: int, size: int) -> Dimension:
    parts = list(dim.parts)
    for position, part in enumerate(parts):
        if isinstance(part, Atom) and part.axis == BATCH:
            parts[position] = replace(part, size=size * part.size // dim.size)
            return Dimension(tuple(parts))
    return Dimension((Atom(size, BATCH),)) if index == 0 and dim.size == 1 else dim


def _trim(activation: Tensor, index: int, dim: Dimension) -> Tensor:
    """The activation without the cells of a dimension that have no place."""
    if not any(isinstance(part, Tokens) for part in dim.parts):
        return activation
    before, after = activation.shape[:index], activation.shape[index + 1 :]
    activation = activation.reshape(*before, *(part.size for part in dim.parts), *after)
    for axis, part in enumerate(dim.parts, start=index):
        if isinstance(part, Tokens):
            activation = activation.narrow(axis, part.before, part.cells)
    return activation.reshape(*before, -1, *after)
