"""DeepLIFT multipliers of elementwise functions, products, quotients and selections.

Each function returns the value of the call in the graph with the multipliers as its backward.
Where a multiplier is linear in what it acts on, it is written as a *stand-in*: a linear
expression whose ordinary autograd is the multiplier, grafted under the value of the call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from voxplain.engine.rules.calls import Call, slope_at
from voxplain.engine.rules.substitutes import grafted, scaled
from voxplain.engine.tensors import wide

_EPS = {torch.float64: 1e-10, torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 1e-3}


def threshold(operand: Tensor, eps: float | None) -> Tensor:
    """The difference below which the derivative replaces the difference quotient.

    Args:
        operand: Values of the image run.
        eps: Relative to max(1, abs x); None for the default of the type.
    """
    relative = _EPS[operand.dtype] if eps is None else eps
    return relative * operand.abs().clamp(min=1)


def difference_quotient(
    value_change: Tensor, change: Tensor, eps: Tensor, slope: Callable[[], Tensor]
) -> Tensor:
    """Delta y / Delta x, and the slope half-way where Delta x is too small to divide by.

    A slope that is not finite (a square root at 0) counts as 0: its share of Delta y is 0.
    """
    near = change.abs() < eps
    quotient = value_change / torch.where(near, torch.ones_like(change), change)
    if not bool(near.any()):
        return quotient
    limit = torch.nan_to_num(slope(), nan=0.0, posinf=0.0, neginf=0.0)
    return torch.where(near, limit, quotient)


def elementwise(call: Call, reference: Call, eps: float | None) -> Tensor:
    """``p = q * Delta y / Delta x`` for y = f(x) applied to each number by itself."""
    operand = call.input.detach()
    dtype = wide(operand.dtype)
    with torch.no_grad():
        value = call.run()
        here, there = _pair(operand, reference.input, dtype)
        change = _run(call, here, dtype) - _run(reference, there, dtype)

        def slope() -> Tensor:
            return slope_at(call.detached(), (here + there) / 2)[1]

        limits = threshold(operand, eps).to(dtype)
        quotient = difference_quotient(change, (here - there).expand_as(change), limits, slope)
    return scaled(call.input, quotient, value)


def _pair(operand: Tensor, reference: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return operand.to(dtype), reference.to(dtype)


def _run(call: Call, operand: Tensor, dtype: torch.dtype) -> Tensor:
    value: Tensor = call.detached().with_input(operand).run()
    return value.to(dtype)


def bilinear(
    function: Callable[[Any, Any], Tensor],
    left: tuple[Tensor, Tensor],
    right: tuple[Tensor, Tensor],
    value: Tensor,
) -> Tensor:
    """``p_u = q . mean(v)`` and ``p_v = mean(u) . q`` for any y = B(u, v), linear in both.

    Exact, since Delta B(u, v) = B(Delta u, mean v) + B(mean u, Delta v).

    Args:
        function: B, without additive terms.
        left: u in the image run (in the graph) and in the reference run.
        right: v likewise.
        value: B(u, v) as the network computed it.
    """
    mean_left = _mean(left)
    mean_right = _mean(right)
    stand_in = function(left[0], mean_right) + function(mean_left, right[0])
    return grafted(stand_in, value)


def _mean(pair: tuple[Tensor, Tensor]) -> Tensor:
    return (pair[0].detach() + pair[1]) / 2


def quotient(
    numerator: tuple[Any, Any], denominator: tuple[Tensor, Tensor], value: Tensor
) -> Tensor:
    """``p_u = q * mean(1/v)``, ``p_v = -q * mean(u) / (v * v_b)`` for y = u / v.

    Args:
        numerator: u in both runs; tensors or numbers.
        denominator: v in both runs.
        value: u / v as the network computed it.
    """
    below, below_b = denominator[0].detach(), denominator[1]
    above = numerator[0].detach() if isinstance(numerator[0], Tensor) else numerator[0]
    mean_reciprocal = (1 / below + 1 / below_b) / 2
    pull = (above + numerator[1]) / 2 / (below * below_b)
    stand_in = numerator[0] * mean_reciprocal - pull * denominator[0]
    return grafted(stand_in, value)


def selection(
    mask: tuple[Tensor, Tensor],
    chosen: tuple[Any, Any],
    other: tuple[Any, Any],
    value: Tensor,
    eps: float | None,
) -> tuple[Tensor, float]:
    """Y = where(m, u, v) = v + m * d with d = u - v: linear in v, rescale in d.

    Exact where the mask is a function of d (every hand-written rectifier, ``maximum``) or equal
    in both runs.

    Args:
        mask: m in both runs, boolean or a factor.
        chosen: u in both runs.
        other: v in both runs; numbers or tensors.
        value: y as the network computed it.
        eps: As in ``threshold``.

    Returns:
        The value in the graph, and the largest part of Delta y that d cannot account for.
    """
    gap = chosen[0] - other[0]
    here = gap.detach()
    there = chosen[1] - other[1]
    m, m_b = mask[0].detach().to(here.dtype), mask[1].to(here.dtype)
    with torch.no_grad():
        interpolated = m * here - m_b * there
        change = (here - there).expand_as(interpolated)
        limit = threshold(here, eps).expand_as(interpolated)
        slope = difference_quotient(
            interpolated, change, limit, lambda: ((m + m_b) / 2).expand_as(interpolated)
        )
        left_over = (
            float((interpolated - slope * change).abs().max()) if interpolated.numel() else 0.0
        )
    stand_in = slope * gap + other[0]
    return grafted(stand_in.expand_as(value), value), left_over
