"""Layouts of operators with several operands: sums, products, concatenations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from voxplain.models.geometry.call import TracedCall
from voxplain.models.geometry.layout import CellLayout, Dimension, channels


def elementwise(call: TracedCall) -> CellLayout | None:
    """Broadcast operators: the result has the layout of the operand of smallest receptive field.

    In a residual or skip connection both branches share a grid, which the shorter one has without
    the drift that strided layers add to the longer one.
    """
    shape = call.shape
    candidates = [
        broadcast(layout, shape) for value, layout in call.known if value.ndim <= len(shape)
    ]
    return common_layout(candidates)


def common_layout(candidates: Sequence[CellLayout]) -> CellLayout | None:
    """The layout of a result of several operands.

    Operands with the most image axes count, of these the ones of smallest receptive field, and of
    these the mean start.
    """
    if not candidates:
        return None
    axes = max(map(spatial_axes, candidates))
    full = [layout for layout in candidates if spatial_axes(layout) == axes]
    best = min(full, key=lambda layout: sum(layout.reach))
    equal = [layout for layout in full if (layout.dims, layout.reach) == (best.dims, best.reach)]
    starts = zip(*(layout.start for layout in equal), strict=True)
    mean_start = tuple(sum(start) / len(equal) for start in starts)
    exact = all(layout.exact and layout.rolled == best.rolled for layout in equal)
    return replace(best, start=mean_start, exact=exact)


def spatial_axes(layout: CellLayout) -> int:
    """Number of image axes along which a tensor has more than one cell."""
    atoms = (atom for dim in layout.dims for atom in dim.atoms)
    return len({atom.axis for atom in atoms if atom.spatial and atom.size > 1})


def broadcast(layout: CellLayout, shape: Sequence[int]) -> CellLayout:
    """The layout after broadcasting to a shape; repeated dimensions have no place."""
    missing = len(shape) - len(layout.dims)
    for index in range(missing):
        layout = layout.insert(index, shape[index])
    for index, size in enumerate(shape):
        if layout.dims[index].size != size:
            layout = layout.with_dimension(index, channels(size))
    return layout


def cat(call: TracedCall) -> CellLayout | None:
    """Concatenation of features, of neighboring pieces, of padding or a class token."""
    tensors: list[Tensor] = [tensor for tensor in call["tensors"] if tensor.numel()]
    layouts = [call.layout_of(tensor) for tensor in tensors]
    index = int(call["dim"]) % tensors[0].ndim
    known = [layout for layout in layouts if layout is not None]
    if not any(layout.dims[index].spatial for layout in known):
        size = call.shape[index]
        return common_layout([layout.with_dimension(index, channels(size)) for layout in known])
    if len(known) == 1:
        return _margins(known[0], index, layouts, [tensor.shape[index] for tensor in tensors])
    return _continued(layouts, index, call.shape[index])


def _margins(
    layout: CellLayout, index: int, layouts: list[CellLayout | None], sizes: list[int]
) -> CellLayout | None:
    """A class token or constant padding joined to a dimension with a place."""
    position, tokens = layouts.index(layout), layout.dims[index].tokens
    if tokens is None:
        return None
    before = tokens.before + sum(sizes[:position])
    after = tokens.after + sum(sizes[position + 1 :])
    return layout.with_dimension(index, Dimension.of(tokens.atoms, before, after))


def _continued(layouts: list[CellLayout | None], index: int, size: int) -> CellLayout | None:
    """Consecutive pieces of one axis, joined; None if they are not consecutive."""
    first = layouts[0] and layouts[0].with_single_atom(index)
    if first is None:
        return None
    atom, cells = first.dims[index].atoms[0], 0
    for layout in layouts:
        piece = layout and layout.with_single_atom(index)
        expected = first.resample(index, cells, 1, piece.dims[index].size) if piece else None
        if piece is None or expected is None or atom.axis is None:
            return None
        if piece.dims != expected.dims or not _close(piece.start, expected.start):
            return None
        cells += piece.dims[index].size
    return first.resample(index, 0, 1, size)


def _close(first: Sequence[float], second: Sequence[float]) -> bool:
    return all(math.isclose(a, b, abs_tol=1e-6) for a, b in zip(first, second, strict=True))


def stack(call: TracedCall) -> CellLayout | None:
    """Tensors stacked along a new dimension."""
    layouts = [call.layout_of(tensor) for tensor in call["tensors"]]
    index = int(call["dim"]) % len(call.shape)
    size = call.shape[index]
    return common_layout([layout.insert(index, size) for layout in layouts if layout is not None])
