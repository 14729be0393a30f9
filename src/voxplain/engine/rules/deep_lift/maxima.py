"""The cross-max rule: DeepLIFT through max-pooling and maxima over axes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from voxplain.engine.rules.calls import Call
from voxplain.engine.rules.substitutes import with_surrogate_gradient


def cross_maximum(call: Call, reference: Call) -> Any:
    """Multipliers of a maximum: o - o_b is credited to the winner of the run with the larger value.

    With c = max(o, o_b) the amount c - o_b is credited to the winner in x and o - c to the winner
    in b; one of the two is 0. The credit is divided by Delta x at that voxel. Overlapping windows
    accumulate, because the backward of ``gather`` is a scatter-add. If o = o_b the credit is 0.
    Several winners of equal value, as in a constant baseline, get equal parts.

    Args:
        call: A max-pooling, ``amax``, ``amin``, ``max`` or ``min`` call of one tensor.
        reference: The same call of the reference run.

    Returns:
        The value with its multipliers; with indices if the call returns them.
    """
    if "pool" in call.name:
        return _pooled(call, reference)
    with torch.no_grad():
        native = call.run()
    sign = -1 if call.name.endswith("min") else 1
    value = native if isinstance(native, Tensor) else native.values
    surrogate = sign * _credit_rows(_rows(call) * sign, _rows(reference) * sign)
    surrogate = surrogate.reshape(value.shape)
    result = with_surrogate_gradient(surrogate, value)
    if isinstance(native, Tensor):
        return result
    kind: Any = type(native)
    return kind((result, native.indices))


def _pooled(call: Call, reference: Call) -> Any:
    with torch.no_grad():
        native = call.run()
        value, indices = _with_indices(call)
        _, indices_b = _with_indices(reference)
    rank = int(call.name[-2])
    positions = math.prod(call.input.shape[-rank:])
    rows, rows_b = (operand.reshape(-1, positions) for operand in (call.input, reference.input))
    winners, winners_b = (places.reshape(rows.shape[0], -1) for places in (indices, indices_b))
    windows = pooling_windows(call, tuple(value.shape[-rank:]))
    surrogate = _credit_winners(rows, winners, rows_b, winners_b, windows).reshape(value.shape)
    result = with_surrogate_gradient(surrogate, value)
    return result if isinstance(native, Tensor) else (result, indices)


def _with_indices(call: Call) -> tuple[Tensor, Tensor]:
    indexed = replace(call, arguments={**call.arguments, "return_indices": True})
    value, indices = indexed.run()
    return value, indices


def _credit_rows(rows: Tensor, rows_b: Tensor) -> Tensor:
    """The surrogate of maxima of whole rows: their winners times the multipliers of these.

    Args:
        rows: Operand as (rows, positions), in the graph.
        rows_b: Operand of the reference run.
    """
    values = rows.detach()
    top, top_b = values.amax(-1, keepdim=True), rows_b.amax(-1, keepdim=True)
    wins = torch.where(top > top_b, values == top, (rows_b == top_b) & (top < top_b))
    change = torch.where(wins, values - rows_b, 1.0)
    count = wins.sum(-1, keepdim=True).clamp(min=1)
    return (rows * torch.where(wins, (top - top_b) / count / change, 0.0)).sum(-1)


def _credit_winners(
    rows: Tensor,
    winners: Tensor,
    rows_b: Tensor,
    winners_b: Tensor,
    windows: Sequence[tuple[Tensor, Tensor]],
) -> Tensor:
    """The surrogate: for each output its winners times the multipliers of these.

    Args:
        rows: Operand as (rows, positions), in the graph.
        winners: A winning position of each output, (rows, outputs).
        rows_b: Operand of the reference run.
        winners_b: Winners of the reference run.
        windows: From :func:`pooling_windows`.
    """
    values = rows.detach()
    top, top_b = values.gather(-1, winners), rows_b.gather(-1, winners_b)
    winner = torch.where(top > top_b, winners, winners_b)
    change = values.gather(-1, winner) - rows_b.gather(-1, winner)
    unchanged = (top == top_b) | (change == 0)
    multiplier = torch.where(unchanged, 0.0, (top - top_b) / torch.where(unchanged, 1.0, change))
    count = torch.zeros_like(winner)
    for at, inside in windows:
        count += _wins(values, rows_b, at, inside, top, top_b)
    tied = (count > 1) & ~unchanged
    surrogate = rows.gather(-1, winner) * multiplier.masked_fill(tied, 0.0)
    if not bool(tied.any()):
        return surrogate
    row, output = tied.nonzero(as_tuple=True)
    share = ((top - top_b) / count.clamp(min=1))[row, output]
    for at, inside in windows:
        position = at[output]
        wins = _wins(values, rows_b, at, inside, top, top_b)[row, output]
        moved = torch.where(wins, values[row, position] - rows_b[row, position], 1.0)
        part = rows[row, position] * torch.where(wins, share / moved, 0.0)
        surrogate = surrogate.index_put((row, output), part, accumulate=True)
    return surrogate


def _wins(
    values: Tensor, rows_b: Tensor, at: Tensor, inside: Tensor, top: Tensor, top_b: Tensor
) -> Tensor:
    """Whether one place of each window holds the maximum of the run with the larger one."""
    wins = torch.where(top > top_b, values[:, at] == top, rows_b[:, at] == top_b)
    return wins & inside


def pooling_windows(call: Call, outputs: tuple[int, ...]) -> list[tuple[Tensor, Tensor]]:
    """The places of the windows of a pooling, one after the other.

    Args:
        call: A max-pooling, adaptive or not.
        outputs: Its output along the pooled axes.

    Returns:
        Per place the flat input position in the window of each output, and whether it lies inside
        of the image; both ``(outputs,)``.
    """
    sizes = call.input.shape[-len(outputs) :]
    axes = [
        _axis_windows(call, axis, *pair)
        for axis, pair in enumerate(zip(sizes, outputs, strict=True))
    ]
    places = []
    for offsets in itertools.product(*(range(table.shape[1]) for table in axes)):
        flat, inside = torch.zeros((), dtype=torch.long), torch.ones((), dtype=torch.bool)
        for axis, (table, offset) in enumerate(zip(axes, offsets, strict=True)):
            column = table[:, offset].view(-1, *[1] * (len(outputs) - 1 - axis))
            flat = flat * sizes[axis] + column.clamp(min=0)
            inside = inside & (column >= 0)
        device = call.input.device
        places.append((flat.flatten().to(device), inside.flatten().to(device)))
    return places


def _axis_windows(call: Call, axis: int, size: int, outputs: int) -> Tensor:
    """Input positions of the windows along an axis, ``(outputs, width)``; -1 outside."""
    index = torch.arange(outputs)[:, None]
    if call.name.startswith("adaptive"):
        begin, end = index * size // outputs, -((-(index + 1) * size) // outputs)
        places = begin + torch.arange(int((end - begin).max()))
        return places.where(places < end, -1)
    kernel = _of_axis(call.arguments["kernel_size"], axis)
    stride = _of_axis(call.get("stride") or kernel, axis)
    padding, dilation = (_of_axis(call.get(name, usual), axis) for name, usual in _USUAL)
    places = index * stride - padding + dilation * torch.arange(kernel)
    return places.where((places >= 0) & (places < size), -1)


def _of_axis(given: Any, axis: int) -> int:
    if isinstance(given, int):
        return given
    return int(given[axis] if len(given) > 1 else given[0])


_USUAL = (("padding", 0), ("dilation", 1))


def _rows(call: Call) -> Tensor:
    """The operand as (positions that stay, positions that are reduced)."""
    operand = call.input
    axes = call.get("dim")
    if axes is None or (isinstance(axes, (tuple, list)) and not axes):
        return operand.reshape(1, -1)
    given = axes if isinstance(axes, (tuple, list)) else (axes,)
    reduced = sorted(axis % operand.dim() for axis in given)
    remaining = [axis for axis in range(operand.dim()) if axis not in reduced]
    count = math.prod(operand.shape[axis] for axis in reduced)
    return operand.permute(*remaining, *reduced).reshape(-1, count)
