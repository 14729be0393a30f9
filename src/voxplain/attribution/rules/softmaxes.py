"""DeepLIFT through softmax, log-softmax and log-sum-exp."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from voxplain.attribution.rules.calls import Call
from voxplain.attribution.rules.multipliers import difference_quotient, threshold
from voxplain.attribution.rules.substitutes import grafted
from voxplain.attribution.rules.tensors import wide


def exact_softmax(call: Call, reference: Call) -> Tensor:
    """Exponential, sum and quotient with one shift, in a form from which the shift has gone.

    With L = logsumexp(z), y = softmax(z), and m_i = Delta exp(z_i) / Delta z_i the slopes
    ``A = m / exp(L_b)`` and ``B = m / exp(L)`` do not depend on the shift, and rescaling e,
    the product rule on e * (1/sum e) and the rule of the reciprocal compose to
    ``p = (q * (A + B) - A * <q, y> - B * <q, y_b>) / 2``. Complete for any change of z.

    Args:
        call: ``softmax(input, dim, dtype)``.
        reference: The same call of the reference run.
    """
    value, operand, here, there, axis = _prepared(call, reference)
    grown, shrunk = _slopes(here, there, axis)
    y, y_b = torch.softmax(here, axis), torch.softmax(there, axis)
    finite = torch.where(torch.isfinite(here), operand, 0.0)
    total = (grown * finite).sum(axis, keepdim=True)
    total_b = (shrunk * finite).sum(axis, keepdim=True)
    stand_in = ((grown + shrunk) * finite - y * total - y_b * total_b) / 2
    return grafted(stand_in, value)


def compatible_softmax(call: Call, reference: Call, eps: float | None) -> Tensor:
    """Rescale each entry, then subtract the mean over the axis: what Captum does, per row.

    Complete only where the mean of Delta z over the axis is 0; for parity alone.
    """
    value, operand, here, there, axis = _prepared(call, reference)
    y, y_b = torch.softmax(here, axis), torch.softmax(there, axis)
    middle = (y + y_b) / 2
    slope = difference_quotient(
        y - y_b, here - there, threshold(here, eps), lambda: middle * (1 - middle)
    )
    centered = operand - operand.mean(axis, keepdim=True)
    return grafted(slope * centered, value)


def log_sum_exp(call: Call, reference: Call) -> Tensor:
    """Exponential, sum and logarithm: ``p_i = q * W_i`` with sum W * Delta z = Delta L."""
    value, operand, here, there, axes = _prepared(call, reference)
    weights = _log_slopes(here, there, axes)
    finite = torch.where(torch.isfinite(here), operand, 0.0)
    total = (weights * finite).sum(axes, keepdim=bool(call.get("keepdim", False)))
    return grafted(total, value)


def log_softmax(call: Call, reference: Call) -> Tensor:
    """Z minus its log-sum-exp."""
    value, operand, here, there, axis = _prepared(call, reference)
    weights = _log_slopes(here, there, axis)
    finite = torch.where(torch.isfinite(here), operand, 0.0)
    return grafted(finite - (weights * finite).sum(axis, keepdim=True), value)


def _prepared(call: Call, reference: Call) -> tuple[Tensor, Tensor, Tensor, Tensor, Any]:
    """Value, operand in the type of the value, both operands outside the graph, and the axis."""
    with torch.no_grad():
        value: Tensor = call.run()
    dtype = wide(value.dtype)
    operand = call.input.to(dtype)
    return value, operand, operand.detach(), reference.input.to(dtype), _axis(call)


def _axis(call: Call) -> Any:
    axis = call.get("dim")
    if axis is not None:
        return axis
    return 0 if call.input.dim() in (0, 1, 3) else 1  # the choice torch makes, with a warning


def _slopes(here: Tensor, there: Tensor, axis: Any) -> tuple[Tensor, Tensor]:
    """A and B of ``exact_softmax``; 0 at entries that are masked out with minus infinity.

    For close values Delta exp(z) = 2 exp(mean z) sinh(Delta z / 2), which does not cancel.
    """
    total, total_b = here.logsumexp(axis, keepdim=True), there.logsumexp(axis, keepdim=True)
    masked = ~(torch.isfinite(here) & torch.isfinite(there))
    z, z_b = torch.where(masked, 0.0, here), torch.where(masked, 0.0, there)
    change, middle = z - z_b, (z + z_b) / 2
    close = change.abs() < 1
    half = torch.where(close, change / 2, 0.5)
    bulge = torch.where(half == 0, 1.0, torch.sinh(half) / torch.where(half == 0, 1.0, half))
    divisor = torch.where(close, 1.0, change)

    def slope(log_total: Tensor) -> Tensor:
        smooth = torch.exp(middle - log_total) * bulge
        apart = (torch.exp(z - log_total) - torch.exp(z_b - log_total)) / divisor
        return torch.where(masked, 0.0, torch.where(close, smooth, apart))

    return slope(total_b), slope(total)


def _log_slopes(here: Tensor, there: Tensor, axes: Any) -> Tensor:
    """Delta L / Delta sum exp, times m: sums to Delta L against Delta z."""
    ratio = here.logsumexp(axes, keepdim=True) - there.logsumexp(axes, keepdim=True)
    _, shrunk = _slopes(here, there, axes)
    shrinkage = -torch.expm1(-ratio)
    still = ratio.abs() < 1e-12
    factor = torch.where(still, 1.0, ratio / torch.where(still, 1.0, shrinkage))
    return factor * shrunk
