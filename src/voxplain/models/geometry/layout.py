"""Where the cells of a tensor lie in the input image, through any reshaping.

A dimension of a tensor is a product of *atoms*, as in einops: the token dimension of a vision
transformer is ``(depth height width)``. The position of a cell along an image axis is linear in
the atoms' indices, ``start[axis] + Σ stride · index``, and stays so through convolutions, pooling,
window partitions and patch merging. What a layer sums over is replaced by its mean position.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

BATCH = -1
"""The axis of atoms that count images, not positions."""


@dataclass(frozen=True)
class Atom:
    """One factor of a dimension.

    Attributes:
        size: Number of indices.
        axis: Image axis it walks along, :data:`BATCH`, or None (channels and the like).
        stride: Voxels of that axis per step; negative after a flip.
    """

    size: int
    axis: int | None = None
    stride: float = 0.0

    @property
    def spatial(self) -> bool:
        """Whether it walks along an image axis."""
        return self.axis is not None and self.axis != BATCH


@dataclass(frozen=True)
class Tokens:
    """Atoms between cells that lie nowhere, such as a class token; it cannot be split.

    Attributes:
        atoms: The factors of the cells that have a place.
        before: Leading cells without a place.
        after: Trailing ones.
    """

    atoms: tuple[Atom, ...]
    before: int
    after: int

    @property
    def cells(self) -> int:
        """Cells that have a place."""
        return math.prod(atom.size for atom in self.atoms)

    @property
    def size(self) -> int:
        """All cells."""
        return self.before + self.cells + self.after


@dataclass(frozen=True)
class Dim:
    """A dimension of a tensor: its factors from the slowest to the fastest."""

    parts: tuple[Atom | Tokens, ...]

    @property
    def size(self) -> int:
        """Length of the dimension."""
        return math.prod(part.size for part in self.parts)

    @property
    def atoms(self) -> tuple[Atom, ...]:
        """The atoms of all factors."""
        nested = (part.atoms if isinstance(part, Tokens) else (part,) for part in self.parts)
        return tuple(atom for atoms in nested for atom in atoms)

    @property
    def spatial(self) -> bool:
        """Whether any factor walks along an image axis."""
        return any(atom.spatial for atom in self.atoms)

    @property
    def tokens(self) -> Tokens | None:
        """The dimension as one run of cells with (possibly empty) margins, if it is one."""
        if len(self.parts) == 1 and isinstance(self.parts[0], Tokens):
            return self.parts[0]
        plain = tuple(part for part in self.parts if isinstance(part, Atom))
        return Tokens(plain, 0, 0) if len(plain) == len(self.parts) else None

    @classmethod
    def of(cls, atoms: tuple[Atom, ...], before: int = 0, after: int = 0) -> Dim:
        """A dimension with margins, or without where both are empty."""
        return cls((Tokens(atoms, before, after),) if before or after else atoms)


@dataclass(frozen=True)
class AxisLayout:
    """The place in the image of every cell of a tensor.

    Attributes:
        dims: One per dimension of the tensor.
        start: Voxel position per image axis where all indices are 0.
        reach: Extent in voxels of what one cell has seen, per axis.
        exact: False once a step was assumed from the shapes.
    """

    dims: tuple[Dim, ...]
    start: tuple[float, ...]
    reach: tuple[float, ...]
    exact: bool = True

    @classmethod
    def of_image(cls, shape: Sequence[int]) -> AxisLayout:
        """The layout of the network's input ``(B, C, *spatial)``."""
        axes = tuple(Dim((Atom(size, axis, 1.0),)) for axis, size in enumerate(shape[2:]))
        zero = (0.0,) * len(axes)
        return cls((Dim((Atom(shape[0], BATCH),)), channels(shape[1]), *axes), zero, zero)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return tuple(dim.size for dim in self.dims)

    def permute(self, order: Sequence[int]) -> AxisLayout:
        """The dimensions in another order."""
        return replace(self, dims=tuple(self.dims[index] for index in order))

    def insert(self, index: int, size: int = 1) -> AxisLayout:
        """A new dimension without a place."""
        return replace(self, dims=(*self.dims[:index], channels(size), *self.dims[index:]))

    def put(self, index: int, dim: Dim) -> AxisLayout:
        """One dimension replaced."""
        return replace(self, dims=(*self.dims[:index], dim, *self.dims[index + 1 :]))

    def reshape(self, shape: Sequence[int]) -> AxisLayout | None:
        """The same cells under another shape; None where the atoms do not split that way."""
        dims = _regroup(self.dims, list(shape))
        return None if dims is None else replace(self, dims=dims)

    def select(self, index: int, at: int) -> AxisLayout:
        """One index of a dimension, which is dropped."""
        tokens = self.dims[index].tokens
        if tokens is None or not tokens.before <= at < tokens.before + tokens.cells:
            return self.collapse([index])
        start, remaining = list(self.start), at - tokens.before
        for atom in reversed(tokens.atoms):
            remaining, step = divmod(remaining, atom.size)
            if atom.axis is not None and atom.axis != BATCH:
                start[atom.axis] += atom.stride * step
        return replace(self, start=tuple(start)).drop(index)

    def drop(self, index: int) -> AxisLayout:
        """One dimension removed, at its index 0."""
        return replace(self, dims=(*self.dims[:index], *self.dims[index + 1 :]))

    def collapse(self, indices: Sequence[int], keep: bool = False) -> AxisLayout:
        """Dimensions summed over: their cells are replaced by the mean position.

        Args:
            indices: Which dimensions, not negative.
            keep: Whether they stay with size 1.
        """
        result = self
        for index in sorted(set(indices), reverse=True):
            result = result._collapse_one(index, keep)
        return result

    def resample(
        self, index: int, offset: float, step: float, size: int, extent: float = 0.0
    ) -> AxisLayout | None:
        """A dimension whose new index ``o`` looks at the old index ``offset + step * o``.

        Args:
            index: Which dimension.
            offset: Old index, possibly fractional, at the new index 0.
            step: Old indices per new index.
            size: New length.
            extent: Old indices between the first and the last one looked at.

        Returns:
            The new layout, or None where the dimension is a product that cannot be followed.
        """
        solid = self.solid(index)
        if solid is None:
            return None
        (atom,) = solid.dims[index].atoms
        axis = atom.axis
        if axis is None or axis == BATCH:
            return solid.put(index, Dim((Atom(size, axis),)))
        start, reach = list(solid.start), list(solid.reach)
        start[axis] += atom.stride * offset
        reach[axis] += abs(atom.stride) * extent
        moved = replace(solid, start=tuple(start), reach=tuple(reach))
        return moved.put(index, Dim((Atom(size, axis, atom.stride * step),)))

    def solid(self, index: int) -> AxisLayout | None:
        """The layout with one single atom in a dimension, its margins counted as cells."""
        dim = self.dims[index]
        if not dim.spatial:
            alone = dim.parts[0] if len(dim.parts) == 1 else None
            counts_images = isinstance(alone, Atom) and alone.axis == BATCH
            return self.put(index, Dim((Atom(dim.size, BATCH if counts_images else None),)))
        if dim.tokens is None:
            return None
        atoms = dim.atoms if len(dim.atoms) == 1 else tuple(a for a in dim.atoms if a.size > 1)
        first, *inner = merged(atoms) or dim.atoms[:1]
        if first.axis is None or first.axis == BATCH or any(one.axis is not None for one in inner):
            return None
        # Inner factors without a place subdivide the cell: a pixel shuffle.
        count = dim.tokens.cells // first.size
        stride, start = first.stride / count, list(self.start)
        start[first.axis] -= stride * ((count - 1) / 2 + dim.tokens.before)
        moved = replace(self, start=tuple(start))
        return moved.put(index, Dim((Atom(dim.size, first.axis, stride),)))

    def _collapse_one(self, index: int, keep: bool) -> AxisLayout:
        start, reach = list(self.start), list(self.reach)
        kept = Atom(1)
        for atom in self.dims[index].atoms:
            if atom.axis is not None and atom.axis != BATCH:
                start[atom.axis] += atom.stride * (atom.size - 1) / 2
                reach[atom.axis] += abs(atom.stride) * (atom.size - 1)
                kept = Atom(1, atom.axis, atom.stride * atom.size)
        result = replace(self, start=tuple(start), reach=tuple(reach))
        return result.put(index, Dim((kept,))) if keep else result.drop(index)


def channels(size: int) -> Dim:
    """A dimension without a place."""
    return Dim((Atom(size),))


def merged(atoms: tuple[Atom, ...]) -> tuple[Atom, ...]:
    """Neighboring atoms that walk along one axis without a gap, joined."""
    for index, (outer, inner) in enumerate(pairwise(atoms)):
        gapless = math.isclose(outer.stride, inner.stride * inner.size, abs_tol=1e-9)
        if outer.axis == inner.axis and (gapless or not inner.spatial):
            joined = Atom(outer.size * inner.size, inner.axis, inner.stride)
            return merged((*atoms[:index], joined, *atoms[index + 2 :]))
    return atoms


def _regroup(dims: tuple[Dim, ...], shape: list[int]) -> tuple[Dim, ...] | None:
    """The factors dealt out again to dimensions of the given sizes."""
    pending = [part for dim in dims for part in dim.parts]
    grouped: list[Dim] = []
    for index, size in enumerate(shape):
        taken = _take(pending, size)
        if taken is None:
            return None
        # Factors of size 1 stay with their neighbor unless a dimension of size 1 awaits them.
        awaited = index + 1 < len(shape) and shape[index + 1] == 1
        while pending and pending[0].size == 1 and not awaited:
            taken.append(pending.pop(0))
        grouped.append(Dim(tuple(taken)))
    return None if pending else tuple(grouped)


def _take(pending: list[Atom | Tokens], size: int) -> list[Atom | Tokens] | None:
    """Factors whose product is the size, the last one split if need be."""
    taken: list[Atom | Tokens] = []
    while size > 1 or not taken:
        if not pending or (size == 1 and pending[0].size > 1):
            return (taken or [Atom(1)]) if size == 1 else None
        part = pending.pop(0)
        if size % part.size:
            if not isinstance(part, Atom) or part.size % size:
                return None
            inner = part.size // size
            pending.insert(0, Atom(inner, part.axis, part.stride))
            part = Atom(size, part.axis, part.stride * inner)
        size //= part.size
        taken.append(part)
    return taken
