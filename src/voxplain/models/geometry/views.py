"""Layouts of operators that only reorder or select cells: reshapes, slices, rolls, repeats."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from voxplain.models.geometry.call import TracedCall
from voxplain.models.geometry.joining import broadcast
from voxplain.models.geometry.layout import Atom, CellLayout, Dimension, channels

Layouts = CellLayout | None | Sequence[CellLayout | None]


def reshape(call: TracedCall) -> Layouts:
    """Views and reshapes."""
    layout = call.layout()
    return layout and layout.reshape(call.shape)


def permute(call: TracedCall) -> Layouts:
    """A permutation of dimensions."""
    layout = call.layout()
    return layout and layout.permute(call.dims("dims"))


def transpose(call: TracedCall, first: str | int, second: str | int) -> Layouts:
    """An exchange of two dimensions, by names of arguments or by fixed indices."""
    layout, order = call.layout(), list(range(call["self"].ndim))
    if layout is None or len(order) < 2:
        return layout
    a = call.dim(first) if isinstance(first, str) else first
    b = call.dim(second) if isinstance(second, str) else second
    order[a], order[b] = order[b], order[a]
    return layout.permute(order)


def unsqueeze(call: TracedCall) -> Layouts:
    """A new dimension of size 1."""
    layout = call.layout()
    return layout and layout.insert(call.dim(ndim=len(call.shape)))


def squeeze(call: TracedCall) -> Layouts:
    """Removal of dimensions of size 1."""
    layout, shape = call.layout(), call["self"].shape
    for index in sorted(call.dims(), reverse=True):
        layout = layout.drop(index) if layout and shape[index] == 1 else layout
    return layout


def expand(call: TracedCall) -> Layouts:
    """Repetition by broadcasting."""
    layout = call.layout()
    return layout and broadcast(layout, call.shape)


def repeat(call: TracedCall) -> Layouts:
    """Consecutive copies, with the same places."""
    layout = call.layout()
    if layout is None:
        return None
    for _ in range(len(call.shape) - len(layout.dims)):
        layout = layout.insert(0)
    for index, size in enumerate(call.shape):
        times = size // max(layout.dims[index].size, 1)
        if times > 1:
            layout = layout.with_dimension(
                index, Dimension((Atom(times), *layout.dims[index].parts))
            )
    return layout


def slicing(call: TracedCall) -> Layouts:
    """A range of cells with a step."""
    layout, index = call.layout(), call.dim()
    begin, end, step = slice(call["start"], call["end"], call["step"]).indices(
        call["self"].shape[index]
    )
    return layout and _sliced(layout, index, begin, end, step)


def _sliced(layout: CellLayout, index: int, begin: int, end: int, step: int) -> CellLayout | None:
    size, tokens = max(0, math.ceil((end - begin) / step)), layout.dims[index].tokens
    if (begin, end, step) == (0, layout.dims[index].size, 1):
        return layout
    if tokens is None:
        return None
    first, last = tokens.before, tokens.before + tokens.cells
    if step == 1 and begin <= first and end >= last:
        return layout.with_dimension(index, Dimension.of(tokens.atoms, first - begin, end - last))
    if end <= first or begin >= last:
        return layout.collapse([index], keep=True).with_dimension(index, channels(size))
    return layout.resample(index, begin, step, size)


def pieces(call: TracedCall) -> Layouts:
    """A dimension split into consecutive ranges."""
    layout, index, begin = call.layout(), call.dim(), 0
    layouts: list[CellLayout | None] = []
    for output in call.outputs:
        end = begin + output.shape[index]
        layouts.append(layout and _sliced(layout, index, begin, end, 1))
        begin = end
    return layouts


def select(call: TracedCall) -> Layouts:
    """One cell of a dimension."""
    layout, index = call.layout(), call.dim()
    return layout and layout.select(index, int(call["index"]) % call["self"].shape[index])


def unbind(call: TracedCall) -> Layouts:
    """Every cell of a dimension as a tensor of its own."""
    layout, index = call.layout(), call.dim()
    return layout and [layout.select(index, cell) for cell in range(len(call.outputs))]


def index_select(call: TracedCall) -> Layouts:
    """Cells by a list of indices."""
    layout = call.layout()
    return layout and _selected(layout, call.dim(), call["index"])


def advanced_index(call: TracedCall) -> Layouts:
    """Indexing with one list of indices; None for several."""
    layout = call.layout()
    indices = [(dim, index) for dim, index in enumerate(call["indices"]) if index is not None]
    if layout is None or len(indices) != 1 or indices[0][1].ndim != 1:
        return None
    return _selected(layout, *indices[0])


def _selected(layout: CellLayout, dim: int, index: Tensor) -> CellLayout | None:
    """Cells by a list of indices with equal steps; None for others, unless they have no place."""
    if index.dtype == torch.bool:
        index = index.nonzero().flatten()
    cells = [int(cell) % layout.dims[dim].size for cell in index.tolist()]
    step = cells[1] - cells[0] if len(cells) > 1 else 1
    if step and cells == list(range(cells[0], cells[0] + step * len(cells), step)):
        return layout.resample(dim, cells[0], step, len(cells))
    if layout.dims[dim].spatial:
        return None
    return layout.collapse([dim], keep=True).with_dimension(dim, channels(len(cells)))


def roll(call: TracedCall) -> Layouts:
    """Cells shifted along dimensions, of which those that leave come back at the other end."""
    layout, dims = call.layout(), call.dims("dims")
    if len(dims) != len(call["shifts"]):
        return None  # the tensor is rolled as one long row
    for index, shift in zip(dims, call["shifts"], strict=True):
        layout = layout and layout.roll(index, shift)
    return layout


def rot90(call: TracedCall) -> Layouts:
    """Quarter turns in a plane of two dimensions."""
    layout, (first, second) = call.layout(), call.dims("dims")
    turns, order = int(call["k"]) % 4, list(range(call["self"].ndim))
    reversed_dims = {0: (), 1: (second,), 2: (first, second), 3: (first,)}[turns]
    for index in reversed_dims:
        layout = layout and _reversed(layout, index)
    if turns % 2:
        order[first], order[second] = order[second], order[first]
    return layout and layout.permute(order)


def index_copy(call: TracedCall) -> Layouts:
    """A tensor whose cells are all replaced by those of another one, in order or reversed."""
    layout, index, cells = call.layout("source"), call.dim(), call["index"].tolist()
    if layout is None or len(cells) != call["self"].shape[index]:
        return None
    if cells == sorted(cells):
        return layout
    return _reversed(layout, index) if cells == sorted(cells, reverse=True) else None


def flip(call: TracedCall) -> Layouts:
    """Reversal of dimensions."""
    layout = call.layout()
    for index in call.dims("dims"):
        layout = layout and _reversed(layout, index)
    return layout


def _reversed(layout: CellLayout, index: int) -> CellLayout | None:
    size = layout.dims[index].size
    return layout.resample(index, size - 1, -1, size)
