"""DeepLIFT multipliers of softmax, log-softmax and log-sum-exp."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from voxplain.engine.rules.calls import Call
from voxplain.engine.rules.deep_lift.multipliers import difference_quotient, threshold
from voxplain.engine.rules.substitutes import with_surrogate_gradient
from voxplain.engine.tensors import wide


def exact_softmax(call: Call, reference: Call) -> Tensor:
    """Multipliers of softmax as exponential, sum and quotient; invariant to a shift of the logits.

    With Z = sum exp(z), y = softmax(z) and the bounded slopes
    ``c_i = Delta exp(z_i) / Delta z_i / (Z + Z_b)`` the multipliers are
    ``p = c * (2 * q - <q, y + y_b>)``. They follow from rescaling e = exp(z), from
    Delta(1/Z) = -Delta Z / (Z * Z_b), and from splitting the product e * (1/Z) with the weight
    Z / (Z + Z_b), as normalization does. The even split is complete too, but its multipliers
    grow like exp(L - L_b), L = log Z, and overflow if the logits of the two runs are far apart.

    Args:
        call: ``softmax(input, dim, dtype)``.
        reference: The same call of the reference run.
    """
    value, operand, z, z_b, axis = _prepared(call, reference)
    slopes, _ = _slopes(z, z_b, axis)
    sum_of_runs = torch.softmax(z, axis) + torch.softmax(z_b, axis)
    weighted = slopes * torch.where(torch.isfinite(z), operand, 0.0)
    surrogate = 2 * weighted - sum_of_runs * weighted.sum(axis, keepdim=True)
    return with_surrogate_gradient(surrogate, value)


def compatible_softmax(call: Call, reference: Call, eps: float | None) -> Tensor:
    """Captum's rule per row: rescale each entry, then subtract the mean over the axis.

    Complete only if the mean of Delta z over the axis is 0; for comparisons with Captum.
    """
    value, operand, z, z_b, axis = _prepared(call, reference)
    y, y_b = torch.softmax(z, axis), torch.softmax(z_b, axis)
    mean = (y + y_b) / 2
    slope = difference_quotient(y - y_b, z - z_b, threshold(z, eps), lambda: mean * (1 - mean))
    centered = operand - operand.mean(axis, keepdim=True)
    return with_surrogate_gradient(slope * centered, value)


def log_sum_exp(call: Call, reference: Call) -> Tensor:
    """Multipliers of log-sum-exp: ``p_i = q * W_i`` with sum W * Delta z = Delta L."""
    value, operand, z, z_b, axes = _prepared(call, reference)
    weights = _log_slopes(z, z_b, axes)
    finite = torch.where(torch.isfinite(z), operand, 0.0)
    total = (weights * finite).sum(axes, keepdim=bool(call.get("keepdim", False)))
    return with_surrogate_gradient(total, value)


def log_softmax(call: Call, reference: Call) -> Tensor:
    """Multipliers of log-softmax: z minus its log-sum-exp."""
    value, operand, z, z_b, axis = _prepared(call, reference)
    weights = _log_slopes(z, z_b, axis)
    finite = torch.where(torch.isfinite(z), operand, 0.0)
    return with_surrogate_gradient(finite - (weights * finite).sum(axis, keepdim=True), value)


def _prepared(call: Call, reference: Call) -> tuple[Tensor, Tensor, Tensor, Tensor, Any]:
    """Value, operand in the type of the value, both operands detached, and the axis."""
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


def _slopes(z: Tensor, z_b: Tensor, axes: Any) -> tuple[Tensor, Tensor]:
    """Delta exp(z) / Delta z / (Z + Z_b), of the order of 1, and L - L_b.

    Entries masked out with minus infinity get 0. For close values
    Delta exp(z) = 2 exp(mean z) sinh(Delta z / 2), which does not cancel.
    """
    log_sum, log_sum_b = z.logsumexp(axes, keepdim=True), z_b.logsumexp(axes, keepdim=True)
    joint = torch.logaddexp(log_sum, log_sum_b)
    masked = ~(torch.isfinite(z) & torch.isfinite(z_b))
    z, z_b = torch.where(masked, 0.0, z), torch.where(masked, 0.0, z_b)
    change = z - z_b
    close = change.abs() < 1
    half = torch.where(close, change / 2, 0.5)
    sinhc = torch.where(half == 0, 1.0, torch.sinh(half) / torch.where(half == 0, 1.0, half))
    if_close = torch.exp((z + z_b) / 2 - joint) * sinhc
    exp_change = torch.exp(z - joint) - torch.exp(z_b - joint)
    slopes = torch.where(close, if_close, exp_change / torch.where(close, 1.0, change))
    return torch.where(masked, 0.0, slopes), log_sum - log_sum_b


def _log_slopes(z: Tensor, z_b: Tensor, axes: Any) -> Tensor:
    """Delta L / Delta z through the sum, with Delta Z / (Z + Z_b) = tanh(Delta L / 2)."""
    slopes, log_change = _slopes(z, z_b, axes)
    equal = log_change == 0
    sum_change = torch.tanh(torch.where(equal, 1.0, log_change) / 2)
    return torch.where(equal, 2.0, log_change / sum_change) * slopes
