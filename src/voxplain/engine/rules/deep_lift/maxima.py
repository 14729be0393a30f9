"""The cross-max rule: DeepLIFT through max-pooling and maxima over axes."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from voxplain.engine.rules.calls import Call
from voxplain.engine.rules.substitutes import grafted


def cross_maximum(call: Call, reference: Call) -> Any:
    """Credits o - o_b to the voxel that wins: in the image where o > o_b, else in the reference.

    With c = max(o, o_b) the amount c - o_b belongs to the winner in x and o - c to the winner in
    b; one of the two is 0. The credit is divided by Delta x at that voxel. Overlapping windows
    accumulate, because the backward of ``gather`` is a scatter-add. Where o = o_b the credit is 0.

    Args:
        call: A max-pooling, ``amax``, ``amin``, ``max`` or ``min`` call of one tensor.
        reference: The same call of the reference run.

    Returns:
        The value in the graph; with indices where the call returns them.
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
    stand_in = sign * _credited(rows, winners, rows_b, winners_b).reshape(value.shape)
    result = grafted(stand_in, value)
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
    winners, winners_b = (found.reshape(rows.shape[0], -1) for found in (indices, indices_b))
    stand_in = _credited(rows, winners, rows_b, winners_b).reshape(value.shape)
    result = grafted(stand_in, value)
    return result if isinstance(native, Tensor) else (result, indices)


def _with_indices(call: Call) -> tuple[Tensor, Tensor]:
    asked = replace(call, arguments={**call.arguments, "return_indices": True})
    value, indices = asked.run()
    return value, indices


def _credited(rows: Tensor, winners: Tensor, rows_b: Tensor, winners_b: Tensor) -> Tensor:
    """The stand-in: each output's winner times its share of the change.

    Args:
        rows: Operand as (rows, positions), in the graph.
        winners: Winning position of each output, (rows, outputs).
        rows_b: Operand of the reference run.
        winners_b: Winners of the reference run.
    """
    here = rows.detach()
    top, top_b = here.gather(-1, winners), rows_b.gather(-1, winners_b)
    winner = torch.where(top > top_b, winners, winners_b)
    change = here.gather(-1, winner) - rows_b.gather(-1, winner)
    still = (top == top_b) | (change == 0)
    share = torch.where(still, 0.0, (top - top_b) / torch.where(still, 1.0, change))
    return rows.gather(-1, winner) * share


def _rows(call: Call) -> Tensor:
    """The operand as (kept positions, reduced positions)."""
    operand = call.input
    axes = call.get("dim")
    if axes is None or (isinstance(axes, (tuple, list)) and not axes):
        return operand.reshape(1, -1)
    chosen = axes if isinstance(axes, (tuple, list)) else (axes,)
    last = sorted(axis % operand.dim() for axis in chosen)
    kept = [axis for axis in range(operand.dim()) if axis not in last]
    reduced = math.prod(operand.shape[axis] for axis in last)
    return operand.permute(*kept, *last).reshape(-1, reduced)
