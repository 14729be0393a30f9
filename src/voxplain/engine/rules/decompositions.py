"""Composite functions written as simpler calls, each of which a rule can replace."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from voxplain.engine.rules.calls import Call, OperationKind
from voxplain.engine.rules.functions import without_dispatch
from voxplain.engine.rules.norms import variance_arguments


def decomposition(call: Call) -> Callable[[], Any] | None:
    """A function that computes a call in simpler calls, to be run under the mode; else None.

    Args:
        call: A call of any function; those of attention and composite functions have one.
    """
    decomposed = _DECOMPOSITIONS.get(call.name)
    if decomposed is not None:
        return lambda: decomposed(call)
    if call.kind in (OperationKind.ATTENTION, OperationKind.COMPOSITE):
        body = without_dispatch(call.operation.pure)
        return lambda: body(**call.arguments)
    return None


def _attention(call: Call) -> Tensor:
    """softmax(q k^T * scale + mask) v."""
    query, key, value = (call.arguments[name] for name in ("query", "key", "value"))
    if call.get("enable_gqa", False):
        repeats = query.shape[-3] // key.shape[-3]
        key, value = (operand.repeat_interleave(repeats, -3) for operand in (key, value))
    scale = call.get("scale")
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    logits = torch.matmul(query * scale, key.transpose(-2, -1))
    logits = _masked(logits, call.get("attn_mask"), bool(call.get("is_causal", False)))
    weights = torch.softmax(logits, -1)
    dropped = call.get("dropout_p", 0.0)
    if dropped:
        weights = F.dropout(weights, dropped, training=True)
    return torch.matmul(weights, value)


def _masked(logits: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    if causal:
        rows, columns = logits.shape[-2:]
        mask = torch.ones(rows, columns, dtype=torch.bool, device=logits.device).tril()
    if mask is None:
        return logits
    if mask.dtype == torch.bool:
        additive = torch.zeros_like(mask, dtype=logits.dtype)
        mask = additive.masked_fill_(mask.logical_not(), float("-inf"))
    return logits + mask


def _maximum(call: Call) -> Any:
    left, right = call.arguments["input"], call.arguments["other"]
    return left + F.relu(right - left)


def _minimum(call: Call) -> Any:
    left, right = call.arguments["input"], call.arguments["other"]
    return left - F.relu(left - right)


def _standard_deviation(call: Call) -> Tensor:
    axes, correction, keepdim = variance_arguments(call)
    return torch.var(call.input, axes, correction=correction, keepdim=keepdim).sqrt()


def _variance_and_mean(call: Call) -> tuple[Tensor, Tensor]:
    axes, correction, keepdim = variance_arguments(call)
    variance = torch.var(call.input, axes, correction=correction, keepdim=keepdim)
    return variance, call.input.mean(axes, keepdim=keepdim)


def _deviation_and_mean(call: Call) -> tuple[Tensor, Tensor]:
    variance, mean = _variance_and_mean(call)
    return variance.sqrt(), mean


def _vector_norm(call: Call) -> Any:
    """(sum |x|^p)^(1/p); matrix norms are not elementwise and have no rule."""
    order = call.get("p", call.get("ord"))
    order = 2 if order is None or order == "fro" else order
    axes, keepdim = call.get("dim"), bool(call.get("keepdim", False))
    if isinstance(order, str):
        return NotImplemented
    all_axes = tuple(range(call.input.dim()))
    reduced = all_axes if axes is None else (axes,) if isinstance(axes, int) else tuple(axes)
    if order == 2:
        return call.input.square().sum(reduced, keepdim=keepdim).sqrt()
    magnitude = call.input.abs()
    if order == math.inf:
        return magnitude.amax(reduced, keepdim=keepdim)
    if order == 1:
        return magnitude.sum(reduced, keepdim=keepdim)
    return magnitude.pow(order).sum(reduced, keepdim=keepdim).pow(1 / order)


def _gated_linear_unit(call: Call) -> Tensor:
    signal, gate = call.input.chunk(2, call.get("dim", -1))
    return signal * gate.sigmoid()


def _add_product(call: Call) -> Any:
    product = call.arguments["tensor1"] * call.arguments["tensor2"]
    return call.input + call.get("value", 1) * product


def _add_quotient(call: Call) -> Any:
    quotient = call.arguments["tensor1"] / call.arguments["tensor2"]
    return call.input + call.get("value", 1) * quotient


def _interpolation(call: Call) -> Any:
    start, end, weight = (call.arguments[name] for name in ("input", "end", "weight"))
    return start + weight * (end - start)


def _add_matrix_product(call: Call) -> Any:
    left, right = (call.arguments[name] for name in call.operation.parameters[1:3])
    product = call.get("alpha", 1) * torch.matmul(left, right)
    if call.name == "addbmm":
        product = product.sum(0)
    beta = call.get("beta", 1)
    return product if beta == 0 else beta * call.input + product


_DECOMPOSITIONS: dict[str, Callable[[Call], Any]] = {
    "scaled_dot_product_attention": _attention,
    "maximum": _maximum,
    "minimum": _minimum,
    "std": _standard_deviation,
    "var_mean": _variance_and_mean,
    "std_mean": _deviation_and_mean,
    "norm": _vector_norm,
    "vector_norm": _vector_norm,
    "glu": _gated_linear_unit,
    "addcmul": _add_product,
    "addcdiv": _add_quotient,
    "lerp": _interpolation,
    "addmm": _add_matrix_product,
    "addmv": _add_matrix_product,
    "baddbmm": _add_matrix_product,
    "addbmm": _add_matrix_product,
}
