"""The place of the cells of a tensor in the input image, through any reshaping.

A dimension of a tensor is a product of factors, its *atoms*, as in einops: the token dimension of
a vision transformer is ``(depth height width)``. The position of a cell along an image axis is
linear in the indices of the atoms, ``start[axis] + Σ stride · index``, and remains so through
convolutions, pooling, window partitions and patch merging. Cells over which a layer sums are
replaced by their mean position.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

BATCH = -1
"""The axis of atoms whose index is the number of the image."""


@dataclass(frozen=True)
class Atom:
    """One factor of a dimension.

    Attributes:
        size: Number of indices.
        axis: Image axis, :data:`BATCH`, or None (such as channels).
        stride: Voxels along the image axis per index; negative after a flip.
    """

    size: int
    axis: int | None = None
    stride: float = 0.0

    @property
    def spatial(self) -> bool:
        """Whether the index is a position along an image axis."""
        return self.axis is not None and self.axis != BATCH


@dataclass(frozen=True)
class Tokens:
    """Cells on a grid between cells without a place, such as a class token; it cannot be split.

    Attributes:
        atoms: The factors of the grid.
        before: Number of cells without a place before the grid.
        after: Number of cells without a place after the grid.
    """

    atoms: tuple[Atom, ...]
    before: int
    after: int

    @property
    def cells(self) -> int:
        """Number of cells of the grid."""
        return math.prod(atom.size for atom in self.atoms)

    @property
    def size(self) -> int:
        """Number of all cells."""
        return self.before + self.cells + self.after


@dataclass(frozen=True)
class Dimension:
    """A dimension of a tensor, as factors from the slowest to the fastest."""

    parts: tuple[Atom | Tokens, ...]

    @property
    def size(self) -> int:
        """Length of the dimension."""
        return math.prod(part.size for part in self.parts)

    @property
    def atoms(self) -> tuple[Atom, ...]:
        """The atoms of all parts."""
        nested = (part.atoms if isinstance(part, Tokens) else (part,) for part in self.parts)
        return tuple(atom for atoms in nested for atom in atoms)

    @property
    def spatial(self) -> bool:
        """Whether any atom is along an image axis."""
        return any(atom.spatial for atom in self.atoms)

    @property
    def tokens(self) -> Tokens | None:
        """The dimension as one grid with (possibly empty) margins; None if it is several parts."""
        if len(self.parts) == 1 and isinstance(self.parts[0], Tokens):
            return self.parts[0]
        atoms = tuple(part for part in self.parts if isinstance(part, Atom))
        return Tokens(atoms, 0, 0) if len(atoms) == len(self.parts) else None

    @classmethod
    def of(cls, atoms: tuple[Atom, ...], before: int = 0, after: int = 0) -> Dimension:
        """A dimension of atoms, with margins of cells without a place."""
        return cls((Tokens(atoms, before, after),) if before or after else atoms)


@dataclass(frozen=True)
class Roll:
    """Cells of an axis moved along, of which those at the end come back at the other end.

    Attributes:
        shift: Voxels by which the start of the layout has moved.
        length: Voxels that the cells covered when they were rolled.
    """

    shift: float = 0.0
    length: float = 0.0


@dataclass(frozen=True)
class CellLayout:
    """The place of every cell of a tensor in the input image.

    Attributes:
        dims: The dimensions of the tensor.
        start: Voxel position of the cell with all indices 0, per image axis.
        reach: Extent of the receptive field of a cell in voxels, per image axis.
        exact: Whether no layout on the way was assumed from shapes.
        rolled: How cells were rolled, per image axis.
    """

    dims: tuple[Dimension, ...]
    start: tuple[float, ...]
    reach: tuple[float, ...]
    exact: bool = True
    rolled: tuple[Roll, ...] = ()

    @classmethod
    def of_image(cls, shape: Sequence[int]) -> CellLayout:
        """The layout of the network's input ``(B, C, *spatial)``."""
        axes = tuple(Dimension((Atom(size, axis, 1.0),)) for axis, size in enumerate(shape[2:]))
        zero = (0.0,) * len(axes)
        dims = (Dimension((Atom(shape[0], BATCH),)), channels(shape[1]), *axes)
        return cls(dims, zero, zero, rolled=(Roll(),) * len(axes))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return tuple(dim.size for dim in self.dims)

    def permute(self, order: Sequence[int]) -> CellLayout:
        """The layout with its dimensions in another order."""
        return replace(self, dims=tuple(self.dims[index] for index in order))

    def insert(self, index: int, size: int = 1) -> CellLayout:
        """The layout with a new dimension without a place."""
        return replace(self, dims=(*self.dims[:index], channels(size), *self.dims[index:]))

    def with_dimension(self, index: int, dim: Dimension) -> CellLayout:
        """The layout with one dimension replaced."""
        return replace(self, dims=(*self.dims[:index], dim, *self.dims[index + 1 :]))

    def reshape(self, shape: Sequence[int]) -> CellLayout | None:
        """The layout after a reshape; None if the atoms cannot be split like that."""
        dims = _regroup(self.dims, list(shape))
        return None if dims is None else replace(self, dims=dims)

    def select(self, index: int, cell: int) -> CellLayout:
        """The layout of one cell of a dimension, without that dimension."""
        tokens = self.dims[index].tokens
        if tokens is None or not tokens.before <= cell < tokens.before + tokens.cells:
            return self.collapse([index])
        start, remaining = list(self.start), cell - tokens.before
        for atom in reversed(tokens.atoms):
            remaining, position = divmod(remaining, atom.size)
            if atom.axis is not None and atom.axis != BATCH:
                start[atom.axis] += atom.stride * position
        return replace(self, start=tuple(start)).drop(index)

    def drop(self, index: int) -> CellLayout:
        """The layout of cell 0 of a dimension, without that dimension."""
        return replace(self, dims=(*self.dims[:index], *self.dims[index + 1 :]))

    def collapse(self, indices: Sequence[int], keep: bool = False) -> CellLayout:
        """The layout after a sum over dimensions, at the mean position of their cells.

        Args:
            indices: Numbers of the dimensions, from 0.
            keep: Whether the dimensions remain with size 1.
        """
        result = self
        for index in sorted(set(indices), reverse=True):
            result = result._collapse_one(index, keep)
        return result

    def resample(
        self, index: int, offset: float, step: float, size: int, extent: float = 0.0
    ) -> CellLayout | None:
        """The layout after resampling a dimension, with new cell ``o`` at ``offset + step * o``.

        Args:
            index: Number of the dimension.
            offset: Old cell, possibly fractional, at the new cell 0.
            step: Old cells per new cell.
            size: New length.
            extent: Distance between the first and the last old cell that a new cell reads.

        Returns:
            The layout; None if the dimension is a product that cannot be resampled.
        """
        layout = self.with_single_atom(index)
        if layout is None:
            return None
        (atom,) = layout.dims[index].atoms
        axis = atom.axis
        if axis is None or axis == BATCH:
            return layout.with_dimension(index, Dimension((Atom(size, axis),)))
        start, reach = list(layout.start), list(layout.reach)
        start[axis] += atom.stride * offset
        reach[axis] += abs(atom.stride) * extent
        moved = replace(layout, start=tuple(start), reach=tuple(reach))
        return moved.with_dimension(index, Dimension((Atom(size, axis, atom.stride * step),)))

    def roll(self, index: int, shift: int) -> CellLayout | None:
        """The layout after a roll of a dimension; None if it is a product of several axes.

        Args:
            index: Number of the dimension.
            shift: Cells by which values move to higher indices.
        """
        size = self.dims[index].size
        single = self.with_single_atom(index)
        moved = single and single.resample(index, -shift, 1, size)
        if not (single and moved) or not single.dims[index].spatial:
            return moved
        (atom,) = single.dims[index].atoms
        assert atom.axis is not None
        rolled, before = list(moved.rolled), moved.rolled[atom.axis]
        moved_by, length = before.shift - atom.stride * shift, abs(atom.stride) * size
        back = math.isclose(moved_by, 0, abs_tol=1e-9)
        rolled[atom.axis] = Roll() if back else Roll(moved_by, length)
        known = not before.shift or math.isclose(before.length, length)
        return replace(moved, rolled=tuple(rolled), exact=moved.exact and known)

    def with_single_atom(self, index: int) -> CellLayout | None:
        """The layout with a single atom in a dimension, of which the margins are cells.

        Args:
            index: Number of the dimension.

        Returns:
            The layout; None if the dimension is a product of several image axes.
        """
        dim = self.dims[index]
        if not dim.spatial:
            only = dim.parts[0] if len(dim.parts) == 1 else None
            counts_images = isinstance(only, Atom) and only.axis == BATCH
            return self.with_dimension(
                index, Dimension((Atom(dim.size, BATCH if counts_images else None),))
            )
        if dim.tokens is None:
            return None
        atoms = dim.atoms if len(dim.atoms) == 1 else tuple(a for a in dim.atoms if a.size > 1)
        first, *inner = merged(atoms) or dim.atoms[:1]
        if (
            first.axis is None
            or first.axis == BATCH
            or any(atom.axis is not None for atom in inner)
        ):
            return None
        # Inner atoms without a place subdivide the cell, as a pixel shuffle does.
        count = dim.tokens.cells // first.size
        stride, start = first.stride / count, list(self.start)
        start[first.axis] -= stride * ((count - 1) / 2 + dim.tokens.before)
        moved = replace(self, start=tuple(start))
        return moved.with_dimension(index, Dimension((Atom(dim.size, first.axis, stride),)))

    def _collapse_one(self, index: int, keep: bool) -> CellLayout:
        start, reach = list(self.start), list(self.reach)
        kept = Atom(1)
        for atom in self.dims[index].atoms:
            if atom.axis is not None and atom.axis != BATCH:
                start[atom.axis] += atom.stride * (atom.size - 1) / 2
                reach[atom.axis] += abs(atom.stride) * (atom.size - 1)
                kept = Atom(1, atom.axis, atom.stride * atom.size)
        result = replace(self, start=tuple(start), reach=tuple(reach))
        return result.with_dimension(index, Dimension((kept,))) if keep else result.drop(index)


def channels(size: int) -> Dimension:
    """A dimension without a place, such as channels."""
    return Dimension((Atom(size),))


def merged(atoms: tuple[Atom, ...]) -> tuple[Atom, ...]:
    """The atoms, with consecutive ones joined that cover one axis without a gap."""
    for index, (outer, inner) in enumerate(pairwise(atoms)):
        gapless = math.isclose(outer.stride, inner.stride * inner.size, abs_tol=1e-9)
        if outer.axis == inner.axis and (gapless or not inner.spatial):
            joined = Atom(outer.size * inner.size, inner.axis, inner.stride)
            return merged((*atoms[:index], joined, *atoms[index + 2 :]))
    return atoms


def _regroup(dims: tuple[Dimension, ...], shape: list[int]) -> tuple[Dimension, ...] | None:
    """The parts grouped into dimensions of the given sizes; None if they do not divide so."""
    pending = [part for dim in dims for part in dim.parts]
    grouped: list[Dimension] = []
    for index, size in enumerate(shape):
        taken = _take(pending, size)
        if taken is None:
            return None
        # Parts of size 1 stay with the part before, unless a dimension of size 1 follows.
        size_1_follows = index + 1 < len(shape) and shape[index + 1] == 1
        while pending and pending[0].size == 1 and not size_1_follows:
            taken.append(pending.pop(0))
        grouped.append(Dimension(tuple(taken)))
    return None if pending else tuple(grouped)


def _take(pending: list[Atom | Tokens], size: int) -> list[Atom | Tokens] | None:
    """The next parts whose product is the size, removed from ``pending``; the last may be split."""
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
