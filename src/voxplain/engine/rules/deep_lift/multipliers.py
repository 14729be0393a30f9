"""DeepLIFT multipliers of elementwise functions, products, quotients and selections.

Each function returns the value of the call with the multipliers as its backward. Most multipliers
are written as a *surrogate*: a linear expression of the operands whose ordinary gradient is the
multiplier (see ``with_surrogate_gradient``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from voxplain.engine.rules.calls import Call, value_and_derivative
from voxplain.engine.rules.substitutes import with_scaled_gradient, with_surrogate_gradient
from voxplain.engine.tensors import wide

_EPS = {torch.float64: 1e-10, torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 1e-3}


def threshold(operand: Tensor, eps: float | None) -> Tensor:
    """The difference below which the derivative replaces the difference quotient.

    Args:
        operand: Values of the image run.
        eps: Relative to max(1, abs x); None for the default of the data type.
    """
    relative = _EPS[operand.dtype] if eps is None else eps
    return relative * operand.abs().clamp(min=1)


def difference_quotient(
    value_change: Tensor, change: Tensor, eps: Tensor, slope: Callable[[], Tensor]
) -> Tensor:
    """Delta y / Delta x; the slope half-way between the runs if Delta x is below ``eps``.

    A slope that is not finite (a square root at 0) counts as 0.
    """
    near = change.abs() < eps
    quotient = value_change / torch.where(near, torch.ones_like(change), change)
    if not bool(near.any()):
        return quotient
    limit = torch.nan_to_num(slope(), nan=0.0, posinf=0.0, neginf=0.0)
    return torch.where(near, limit, quotient)


def elementwise(call: Call, reference: Call, eps: float | None) -> Tensor:
    """``p = q * Delta y / Delta x`` for an elementwise function y = f(x)."""
    operand = call.input.detach()
    dtype = wide(operand.dtype)
    with torch.no_grad():
        value = call.run()
        x, x_b = operand.to(dtype), reference.input.to(dtype)
        change = _run(call, x, dtype) - _run(reference, x_b, dtype)

        def slope() -> Tensor:
            return value_and_derivative(call.detached(), (x + x_b) / 2)[1]

        limits = threshold(operand, eps).to(dtype)
        quotient = difference_quotient(change, (x - x_b).expand_as(change), limits, slope)
    return with_scaled_gradient(call.input, quotient, value)


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
    surrogate = function(left[0], mean_right) + function(mean_left, right[0])
    return with_surrogate_gradient(surrogate, value)


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
    multiplier_of_v = -((above + numerator[1]) / 2 / (below * below_b))
    surrogate = numerator[0] * mean_reciprocal + multiplier_of_v * denominator[0]
    return with_surrogate_gradient(surrogate, value)


def selection(
    mask: tuple[Tensor, Tensor],
    chosen: tuple[Any, Any],
    other: tuple[Any, Any],
    value: Tensor,
    eps: float | None,
) -> tuple[Tensor, float]:
    """Multipliers of y = where(m, u, v) = v + m * d with d = u - v: linear in v, rescale in d.

    Exact if the mask is a function of d (every hand-written rectifier, ``maximum``) or equal in
    both runs.

    Args:
        mask: m in both runs, boolean or a factor.
        chosen: u in both runs.
        other: v in both runs; numbers or tensors.
        value: y as the network computed it.
        eps: As in ``threshold``.

    Returns:
        The value with its multipliers, and the largest part of Delta y that they do not explain.
    """
    difference = chosen[0] - other[0]
    d = difference.detach()
    d_b = chosen[1] - other[1]
    m, m_b = mask[0].detach().to(d.dtype), mask[1].to(d.dtype)
    with torch.no_grad():
        value_change = m * d - m_b * d_b
        change = (d - d_b).expand_as(value_change)
        limit = threshold(d, eps).expand_as(value_change)
        slope = difference_quotient(
            value_change, change, limit, lambda: ((m + m_b) / 2).expand_as(value_change)
        )
        residual = value_change - slope * change
        unexplained = float(residual.abs().max()) if residual.numel() else 0.0
    surrogate = slope * difference + other[0]
    return with_surrogate_gradient(surrogate.expand_as(value), value), unexplained
