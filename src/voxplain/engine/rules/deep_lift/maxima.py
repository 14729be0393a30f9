"""The cross-max rule: DeepLIFT through max-pooling and maxima over axes."""

from __future__ import annotations

import math
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
    rows, rows_b = _rows(call) * sign, _rows(reference) * sign
    winners = rows.detach().argmax(-1, keepdim=True)
    winners_b = rows_b.argmax(-1, keepdim=True)
    value = native if isinstance(native, Tensor) else native.values
    surrogate = sign * _credit_winners(rows, winners, rows_b, winners_b).reshape(value.shape)
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
    surrogate = _credit_winners(rows, winners, rows_b, winners_b).reshape(value.shape)
    result = with_surrogate_gradient(surrogate, value)
    return result if isinstance(native, Tensor) else (result, indices)


def _with_indices(call: Call) -> tuple[Tensor, Tensor]:
    indexed = replace(call, arguments={**call.arguments, "return_indices": True})
    value, indices = indexed.run()
    return value, indices


def _credit_winners(rows: Tensor, winners: Tensor, rows_b: Tensor, winners_b: Tensor) -> Tensor:
    """The surrogate: for each output its winner times the multiplier of the winner.

    Args:
        rows: Operand as (rows, positions), in the graph.
        winners: Winning position of each output, (rows, outputs).
        rows_b: Operand of the reference run.
        winners_b: Winners of the reference run.
    """
    values = rows.detach()
    top, top_b = values.gather(-1, winners), rows_b.gather(-1, winners_b)
    winner = torch.where(top > top_b, winners, winners_b)
    change = values.gather(-1, winner) - rows_b.gather(-1, winner)
    unchanged = (top == top_b) | (change == 0)
    multiplier = torch.where(unchanged, 0.0, (top - top_b) / torch.where(unchanged, 1.0, change))
    return rows.gather(-1, winner) * multiplier


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
