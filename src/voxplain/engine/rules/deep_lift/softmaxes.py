"""DeepLIFT through softmax, log-softmax and log-sum-exp."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from voxplain.engine.rules.calls import Call
from voxplain.engine.rules.deep_lift.multipliers import difference_quotient, threshold
from voxplain.engine.rules.substitutes import grafted
from voxplain.engine.tensors import wide


def exact_softmax(call: Call, reference: Call) -> Tensor:
    """Exponential, sum and quotient with one shift, in a form from which the shift has gone.

    With Z = sum exp(z), y = softmax(z) and the bounded slopes
    ``c_i = Delta exp(z_i) / Delta z_i / (Z + Z_b)`` the multipliers are
    ``p = c * (2 * q - <q, y + y_b>)``. They follow from rescaling e = exp(z), from
    Delta(1/Z) = -Delta Z / (Z * Z_b), and from splitting the product e * (1/Z) with the weight
    Z / (Z + Z_b), as normalization does. The even split is complete too, but its multipliers
    grow like exp(L - L_b), L = log Z, and overflow where the logits of the two runs are far apart.

    Args:
        call: ``softmax(input, dim, dtype)``.
        reference: The same call of the reference run.
    """
    value, operand, here, there, axis = _prepared(call, reference)
    slopes, _ = _slopes(here, there, axis)
    both = torch.softmax(here, axis) + torch.softmax(there, axis)
    weighted = slopes * torch.where(torch.isfinite(here), operand, 0.0)
    stand_in = 2 * weighted - both * weighted.sum(axis, keepdim=True)
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


def _slopes(here: Tensor, there: Tensor, axes: Any) -> tuple[Tensor, Tensor]:
    """Delta exp(z) / Delta z / (Z + Z_b), and L - L_b; all of the size of 1.

    Entries masked out with minus infinity get 0. For close values
    Delta exp(z) = 2 exp(mean z) sinh(Delta z / 2), which does not cancel.
    """
    total, total_b = here.logsumexp(axes, keepdim=True), there.logsumexp(axes, keepdim=True)
    joint = torch.logaddexp(total, total_b)
    masked = ~(torch.isfinite(here) & torch.isfinite(there))
    z, z_b = torch.where(masked, 0.0, here), torch.where(masked, 0.0, there)
    change = z - z_b
    close = change.abs() < 1
    half = torch.where(close, change / 2, 0.5)
    bulge = torch.where(half == 0, 1.0, torch.sinh(half) / torch.where(half == 0, 1.0, half))
    smooth = torch.exp((z + z_b) / 2 - joint) * bulge
    apart = torch.exp(z - joint) - torch.exp(z_b - joint)
    slopes = torch.where(close, smooth, apart / torch.where(close, 1.0, change))
    return torch.where(masked, 0.0, slopes), total - total_b


def _log_slopes(here: Tensor, there: Tensor, axes: Any) -> Tensor:
    """Delta L / Delta z through the sum: Delta Z / (Z + Z_b) = tanh(Delta L / 2)."""
    slopes, ratio = _slopes(here, there, axes)
    still = ratio == 0
    shrunk = torch.tanh(torch.where(still, 1.0, ratio) / 2)
    return torch.where(still, 2.0, ratio / shrunk) * slopes
