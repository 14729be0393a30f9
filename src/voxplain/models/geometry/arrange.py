"""An activation brought to ``(B, K, *cells)``, however the layer lays its cells out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

from torch import Tensor

from voxplain.errors import ModelError
from voxplain.models.geometry.layout import BATCH, Atom, AxisLayout, Dim, Tokens, merged


def arrange(activation: Tensor, layout: AxisLayout) -> Tensor:
    """Channels first, one dimension per image axis, cells without a place left out.

    Args:
        activation: As the layer gave it, with any number of images.
        layout: Of that layer on an example of the same spatial shape.

    Returns:
        ``(B, K, *cells)``.

    Raises:
        ModelError: If the activation is not laid out that way.
    """
    plan = _plan(layout, tuple(activation.shape))
    for index, dim in enumerate(plan.layout.dims):
        activation = _trim(activation, index, dim)
    return activation.reshape(plan.sizes).permute(plan.order).reshape(plan.shape)


@dataclass(frozen=True)
class _Arrangement:
    """Split into factors, put them in order, merge them."""

    layout: AxisLayout
    sizes: tuple[int, ...]
    order: tuple[int, ...]
    shape: tuple[int, ...]


@lru_cache(maxsize=1024)  # asked for every tap in every pass
def _plan(layout: AxisLayout, given: tuple[int, ...]) -> _Arrangement:
    layout = _for_images(layout, given)
    atoms, runs = flat_atoms(layout), cell_runs(layout)
    images = [index for index, atom in enumerate(atoms) if atom.axis == BATCH]
    cells = [index for run in runs for index in run]
    features = [index for index in range(len(atoms)) if index not in {*images, *cells}]
    sizes = tuple(atom.size for atom in atoms)
    shape = tuple(math.prod(sizes[one] for one in part) for part in (images, features, *runs))
    return _Arrangement(layout, sizes, (*images, *features, *cells), shape)


def flat_atoms(layout: AxisLayout) -> list[Atom]:
    """All factors of all dimensions in order."""
    return [atom for dim in layout.dims for atom in dim.atoms]


def cell_runs(layout: AxisLayout) -> list[list[int]]:
    """Per image axis the factors that make it up without gap or overlap, coarsest first.

    Overlapping finer factors (the content of an unfolded window) are not among them.
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


def _for_images(layout: AxisLayout, given: tuple[int, ...]) -> AxisLayout:
    """The layout for the number of images in an activation of this shape."""
    if len(given) == len(layout.dims):
        for index, size in enumerate(given):
            layout = layout.put(index, _with_images(layout.dims[index], index, size))
    if layout.shape != given:
        raise ModelError(
            f"an activation of shape {given} is not laid out as its layer was on the example, "
            f"{layout.shape}; follow the layer on an input of this size"
        )
    return layout


def _with_images(dim: Dim, index: int, size: int) -> Dim:
    parts = list(dim.parts)
    for at, part in enumerate(parts):
        if isinstance(part, Atom) and part.axis == BATCH:
            parts[at] = replace(part, size=size * part.size // dim.size)
            return Dim(tuple(parts))
    return Dim((Atom(size, BATCH),)) if index == 0 and dim.size == 1 else dim


def _trim(activation: Tensor, index: int, dim: Dim) -> Tensor:
    """One dimension without the cells that have no place."""
    if not any(isinstance(part, Tokens) for part in dim.parts):
        return activation
    lead, tail = activation.shape[:index], activation.shape[index + 1 :]
    activation = activation.reshape(*lead, *(part.size for part in dim.parts), *tail)
    for at, part in enumerate(dim.parts, start=index):
        if isinstance(part, Tokens):
            activation = activation.narrow(at, part.before, part.cells)
    return activation.reshape(*lead, -1, *tail)
