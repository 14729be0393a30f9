"""Operators with several sources: sums, products, concatenations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from voxplain.models.geometry.call import TracedCall
from voxplain.models.geometry.layout import AxisLayout, Dim, channels


def elementwise(call: TracedCall) -> AxisLayout | None:
    """Broadcast operators: the operand that has seen least says where the result lies.

    In a residual or skip connection both branches share the grid, and the shorter one shows it
    without the drift of strided layers on the longer one.
    """
    shape = call.shape
    candidates = [
        broadcast(layout, shape) for value, layout in call.known if value.ndim <= len(shape)
    ]
    return lead(candidates)


def lead(candidates: Sequence[AxisLayout]) -> AxisLayout | None:
    """The layout of a result with several sources: most axes, then shortest reach, then mean."""
    if not candidates:
        return None
    axes = max(map(spatial_axes, candidates))
    full = [layout for layout in candidates if spatial_axes(layout) == axes]
    best = min(full, key=lambda layout: sum(layout.reach))
    peers = [one for one in full if one.dims == best.dims and one.reach == best.reach]
    start = tuple(
        sum(parts) / len(peers) for parts in zip(*(one.start for one in peers), strict=True)
    )
    exact = all(one.exact for one in peers)
    return replace(best, start=start, exact=exact)


def spatial_axes(layout: AxisLayout) -> int:
    """Along how many image axes the tensor still has more than one cell."""
    atoms = (atom for dim in layout.dims for atom in dim.atoms)
    return len({atom.axis for atom in atoms if atom.spatial and atom.size > 1})


def broadcast(layout: AxisLayout, shape: Sequence[int]) -> AxisLayout:
    """The layout under a larger shape: what is repeated there has no place of its own."""
    missing = len(shape) - len(layout.dims)
    for index in range(missing):
        layout = layout.insert(index, shape[index])
    for index, size in enumerate(shape):
        if layout.dims[index].size != size:
            layout = layout.put(index, channels(size))
    return layout


def cat(call: TracedCall) -> AxisLayout | None:
    """Concatenation: of features, of neighboring pieces, of padding or a class token."""
    tensors: list[Tensor] = [tensor for tensor in call["tensors"] if tensor.numel()]
    layouts = [call.layout_of(tensor) for tensor in tensors]
    index = int(call["dim"]) % tensors[0].ndim
    known = [layout for layout in layouts if layout is not None]
    if not any(layout.dims[index].spatial for layout in known):
        size = call.shape[index]
        return lead([layout.put(index, channels(size)) for layout in known])
    if len(known) == 1:
        return _margins(known[0], index, layouts, [tensor.shape[index] for tensor in tensors])
    return _continued(layouts, index, call.shape[index])


def _margins(
    layout: AxisLayout, index: int, layouts: list[AxisLayout | None], sizes: list[int]
) -> AxisLayout | None:
    """A class token, or constant padding, joined to a dimension with a place."""
    at, tokens = layouts.index(layout), layout.dims[index].tokens
    if tokens is None:
        return None
    before, after = tokens.before + sum(sizes[:at]), tokens.after + sum(sizes[at + 1 :])
    return layout.put(index, Dim.of(tokens.atoms, before, after))


def _continued(layouts: list[AxisLayout | None], index: int, size: int) -> AxisLayout | None:
    """Pieces of one axis put together again, where each begins where the last one ended."""
    first = layouts[0] and layouts[0].solid(index)
    if first is None:
        return None
    atom, cells = first.dims[index].atoms[0], 0
    for layout in layouts:
        piece = layout and layout.solid(index)
        moved = first.resample(index, cells, 1, piece.dims[index].size) if piece else None
        if piece is None or moved is None or atom.axis is None:
            return None
        if piece.dims != moved.dims or not _close(piece.start, moved.start):
            return None
        cells += piece.dims[index].size
    return first.resample(index, 0, 1, size)


def _close(one: Sequence[float], two: Sequence[float]) -> bool:
    return all(math.isclose(a, b, abs_tol=1e-6) for a, b in zip(one, two, strict=True))


def stack(call: TracedCall) -> AxisLayout | None:
    """Tensors under a new dimension."""
    layouts = [call.layout_of(tensor) for tensor in call["tensors"]]
    index = int(call["dim"]) % len(call.shape)
    size = call.shape[index]
    return lead([layout.insert(index, size) for layout in layouts if layout is not None])
