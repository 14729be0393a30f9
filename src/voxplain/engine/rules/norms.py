"""DeepLIFT multipliers of normalization layers and variances, and their frozen statistics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from voxplain.engine.rules.calls import Call
from voxplain.engine.rules.substitutes import with_surrogate_gradient
from voxplain.engine.tensors import wide


def normalization(call: Call, reference: Call) -> Tensor:
    """Multipliers of y = c * r with c = x - mean(x), v = mean(c * c), r = (v + eps)^(-1/2).

    The product rule on c * c gives Delta v = mean((c + c_b) * Delta c). The multiplier of r is
    (r - r_b) / (v - v_b) = -(r * r_b)^2 / (r + r_b), exact and without a division by a small
    difference. The product c * r is split with the weights w = r_b / (r + r_b) and 1 - w, which
    is exact for any w: Delta(c * r) = h * Delta c + (w * c_b + (1 - w) * c) * Delta r with
    h = w * r + (1 - w) * r_b = 2 * r * r_b / (r + r_b), the harmonic mean. With w = 1/2, h is the
    arithmetic mean, which a constant reference (r_b = 316 at eps 1e-5) makes 158 at every norm:
    ten norms in a row gave multipliers of 1e17 and no completeness in float64. The harmonic mean
    is below 2 * r; both means agree if r and r_b are close.

    Args:
        call: An instance, group, layer, RMS or batch norm that uses the input's statistics.
        reference: The same call of the reference run.
    """
    with torch.no_grad():
        value: Tensor = call.run()
    dtype = wide(value.dtype)
    grouped, axes = _grouped(call, call.input.to(dtype))
    grouped_b, _ = _grouped(call, reference.input.to(dtype))
    centered, centered_b = _centered(call, grouped, axes), _centered(call, grouped_b, axes)
    eps = _eps(call, value.dtype)
    r = _inverse_root(centered.detach(), axes, eps)
    r_b = _inverse_root(centered_b, axes, eps)
    c = centered.detach()
    harmonic_mean = 2 * r * r_b / (r + r_b)
    weighted_mean = (r * c + r_b * centered_b) / (r + r_b)
    variance = ((c + centered_b) * centered).mean(axes, keepdim=True)
    multiplier_of_r = -((r * r_b) ** 2) / (r + r_b)
    surrogate = centered * harmonic_mean + weighted_mean * multiplier_of_r * variance
    return with_surrogate_gradient(_affine(call, surrogate.reshape(call.input.shape)), value)


def variance(call: Call, reference: Call) -> Tensor:
    """Multipliers of v = sum(c * c) / (n - correction) by the product rule."""
    axes, correction, keepdim = variance_arguments(call)
    with torch.no_grad():
        value: Tensor = call.run()
    operand = call.input
    centered = operand - operand.mean(axes, keepdim=True)
    centered_b = reference.input - reference.input.mean(axes, keepdim=True)
    count = operand.numel() / max(value.numel(), 1)
    total = ((centered.detach() + centered_b) * centered).sum(axes, keepdim=keepdim)
    return with_surrogate_gradient(total / (count - correction), value)


def with_frozen_statistics(call: Call, operand: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and value of a norm as an affine map, its statistics frozen at those of the operand.

    Args:
        call: As for :func:`normalization`.
        operand: Of the norm, detached.

    Returns:
        Two tensors of the operand's shape: w * r, and w * (x - mean) * r + b.
    """
    grouped, axes = _grouped(call, operand)
    centered = _centered(call, grouped, axes)
    root = _inverse_root(centered, axes, _eps(call, operand.dtype))
    slope = _affine(call, root.expand_as(grouped).reshape(operand.shape))
    value = _affine(call, (centered * root).reshape(operand.shape))
    bias = call.get("bias")
    if bias is None:
        return slope, value
    shape = [1, -1, *[1] * (operand.dim() - 2)] if call.name != "layer_norm" else bias.shape
    return slope, value + bias.detach().to(value.dtype).reshape(shape)


def variance_arguments(call: Call) -> tuple[tuple[int, ...], float, bool]:
    """Axes, correction and ``keepdim`` of ``var`` and ``std`` in any of their four signatures."""
    axes, unbiased = call.get("dim"), call.get("unbiased", True)
    if isinstance(axes, bool):
        axes, unbiased = None, axes
    correction = call.get("correction")
    if correction is None:
        correction = 1 if unbiased is None else int(unbiased)
    all_axes = tuple(range(call.input.dim()))
    reduced = all_axes if axes is None else (axes,) if isinstance(axes, int) else tuple(axes)
    return reduced or all_axes, correction, bool(call.get("keepdim", False))


def _grouped(call: Call, operand: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """The operand reshaped so that statistics are taken over the returned axes."""
    if call.name == "batch_norm":
        return operand, (0, *range(2, operand.dim()))
    if call.name == "instance_norm":
        return operand, tuple(range(2, operand.dim()))
    if call.name == "group_norm":
        return operand.reshape(operand.shape[0], call.arguments["num_groups"], -1), (2,)
    normalized = call.arguments["normalized_shape"]
    count = len(normalized) if isinstance(normalized, (tuple, list)) else 1
    return operand, tuple(range(-count, 0))


def _centered(call: Call, grouped: Tensor, axes: tuple[int, ...]) -> Tensor:
    if call.name == "rms_norm":
        return grouped
    return grouped - grouped.mean(axes, keepdim=True)


def _inverse_root(centered: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    return (centered.square().mean(axes, keepdim=True) + eps).rsqrt()


def _eps(call: Call, dtype: torch.dtype) -> float:
    eps = call.get("eps")
    if eps is not None:
        return float(eps)
    return torch.finfo(dtype).eps if call.name == "rms_norm" else 1e-5


def _affine(call: Call, normalized: Tensor) -> Tensor:
    """The normalized values times the weight; the bias cancels in every difference."""
    weight: Any = call.get("weight")
    if weight is None:
        return normalized
    scale: Tensor = weight.detach().to(normalized.dtype)
    if call.name in ("layer_norm", "rms_norm"):
        return normalized * scale
    return normalized * scale.reshape(1, -1, *[1] * (normalized.dim() - 2))
