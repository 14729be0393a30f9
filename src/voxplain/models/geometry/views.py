"""Operators that only rename, pick or move cells: reshapes, slices, rolls, repeats."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from voxplain.models.geometry.call import TracedCall
from voxplain.models.geometry.joining import broadcast
from voxplain.models.geometry.layout import Atom, AxisLayout, Dim, channels

Layouts = AxisLayout | None | Sequence[AxisLayout | None]


def reshape(call: TracedCall) -> Layouts:
    """Views and reshapes."""
    layout = call.layout()
    return layout and layout.reshape(call.shape)


def permute(call: TracedCall) -> Layouts:
    """Dimensions in another order."""
    layout = call.layout()
    return layout and layout.permute(call.dims("dims"))


def transpose(call: TracedCall, first: str | int, second: str | int) -> Layouts:
    """Two dimensions exchanged, by arguments or by fixed indices."""
    layout, order = call.layout(), list(range(call["self"].ndim))
    if layout is None or len(order) < 2:
        return layout
    one = call.dim(first) if isinstance(first, str) else first
    two = call.dim(second) if isinstance(second, str) else second
    order[one], order[two] = order[two], order[one]
    return layout.permute(order)


def unsqueeze(call: TracedCall) -> Layouts:
    """A new dimension of size 1."""
    layout = call.layout()
    return layout and layout.insert(call.dim(ndim=len(call.shape)))


def squeeze(call: TracedCall) -> Layouts:
    """Dimensions of size 1 dropped."""
    layout, shape = call.layout(), call["self"].shape
    for index in sorted(call.dims(), reverse=True):
        layout = layout.drop(index) if layout and shape[index] == 1 else layout
    return layout


def expand(call: TracedCall) -> Layouts:
    """Repetition by broadcasting."""
    layout = call.layout()
    return layout and broadcast(layout, call.shape)


def repeat(call: TracedCall) -> Layouts:
    """Whole copies one after the other, which share their places."""
    layout = call.layout()
    if layout is None:
        return None
    for _ in range(len(call.shape) - len(layout.dims)):
        layout = layout.insert(0)
    for index, size in enumerate(call.shape):
        times = size // max(layout.dims[index].size, 1)
        if times > 1:
            layout = layout.put(index, Dim((Atom(times), *layout.dims[index].parts)))
    return layout


def slicing(call: TracedCall) -> Layouts:
    """A range of cells with a step."""
    layout, index = call.layout(), call.dim()
    begin, end, step = slice(call["start"], call["end"], call["step"]).indices(
        call["self"].shape[index]
    )
    return layout and _sliced(layout, index, begin, end, step)


def _sliced(layout: AxisLayout, index: int, begin: int, end: int, step: int) -> AxisLayout | None:
    size, tokens = max(0, math.ceil((end - begin) / step)), layout.dims[index].tokens
    if (begin, end, step) == (0, layout.dims[index].size, 1):
        return layout
    if tokens is None:
        return None
    first, last = tokens.before, tokens.before + tokens.cells
    if step == 1 and begin <= first and end >= last:
        return layout.put(index, Dim.of(tokens.atoms, first - begin, end - last))
    if end <= first or begin >= last:
        return layout.collapse([index], keep=True).put(index, channels(size))
    return layout.resample(index, begin, step, size)


def pieces(call: TracedCall) -> Layouts:
    """A dimension cut into neighboring ranges."""
    layout, index, begin = call.layout(), call.dim(), 0
    found: list[AxisLayout | None] = []
    for output in call.outputs:
        end = begin + output.shape[index]
        found.append(layout and _sliced(layout, index, begin, end, 1))
        begin = end
    return found


def select(call: TracedCall) -> Layouts:
    """One index of a dimension."""
    layout, index = call.layout(), call.dim()
    return layout and layout.select(index, int(call["index"]) % call["self"].shape[index])


def unbind(call: TracedCall) -> Layouts:
    """Every index of a dimension as a tensor of its own."""
    layout, index = call.layout(), call.dim()
    return layout and [layout.select(index, at) for at in range(len(call.outputs))]


def index_select(call: TracedCall) -> Layouts:
    """Cells by a list of indices."""
    layout = call.layout()
    return layout and _picked(layout, call.dim(), call["index"])


def advanced_index(call: TracedCall) -> Layouts:
    """Indexing with one list of indices; with more there is no rule."""
    layout = call.layout()
    given = [(at, index) for at, index in enumerate(call["indices"]) if index is not None]
    if layout is None or len(given) != 1 or given[0][1].ndim != 1:
        return None
    return _picked(layout, *given[0])


def _picked(layout: AxisLayout, dim: int, index: Tensor) -> AxisLayout | None:
    """Cells by a list of indices: an even step is followed, any other order has no place."""
    if index.dtype == torch.bool:
        index = index.nonzero().flatten()
    places = [int(place) % layout.dims[dim].size for place in index.tolist()]
    step = places[1] - places[0] if len(places) > 1 else 1
    if step and places == list(range(places[0], places[0] + step * len(places), step)):
        return layout.resample(dim, places[0], step, len(places))
    return layout.collapse([dim], keep=True).put(dim, channels(len(places)))


def roll(call: TracedCall) -> Layouts:
    """Cells moved along a dimension; those that wrap around keep the moved place."""
    layout = call.layout()
    for index, shift in zip(call.dims("dims"), call["shifts"], strict=True):
        layout = layout and layout.resample(index, -shift, 1, call.shape[index])
    return layout


def flip(call: TracedCall) -> Layouts:
    """Dimensions in reverse."""
    layout = call.layout()
    for index in call.dims("dims"):
        size = call.shape[index]
        layout = layout and layout.resample(index, size - 1, -1, size)
    return layout
