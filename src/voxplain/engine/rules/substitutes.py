"""Autograd functions that keep the value of a call and replace its backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from voxplain.engine.rules.calls import Call


class Substitute(torch.autograd.Function):
    """Base of the functions below; their state is in the ``ctx`` of one call.

    The value is returned through ``detach``, which shares its memory but is not a view of an
    input, so that later in-place operations on it are allowed as on an ordinary result.
    """

    generate_vmap_rule = True


class ScaledGradient(Substitute):
    """Value ``value``; backward ``q * slope``."""

    @staticmethod
    def forward(operand: Tensor, slope: Tensor, value: Tensor) -> Tensor:  # noqa: ARG004
        """The value of the replaced call."""
        return value.detach()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ARG004
        """Saves the slope."""
        operand, slope, _ = inputs
        ctx.dtype = operand.dtype
        ctx.save_for_backward(slope)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient times the slope."""
        (slope,) = ctx.saved_tensors
        return (gradients[0] * slope).to(ctx.dtype), None, None


class ClampedGradient(Substitute):
    """Value ``value``; backward ``max(0, q) * slope``, or ``max(0, q)`` without a slope."""

    @staticmethod
    def forward(operand: Tensor, slope: Tensor | None, value: Tensor) -> Tensor:  # noqa: ARG004
        """The value of the replaced call."""
        return value.detach()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        """Saves the slope, if any."""
        operand, slope, _ = inputs
        ctx.dtype = operand.dtype
        ctx.has_slope = slope is not None
        if slope is not None:
            ctx.save_for_backward(slope)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The positive part of the gradient, times the slope."""
        positive = gradients[0].clamp(min=0)
        if ctx.has_slope:
            positive = positive * ctx.saved_tensors[0]
        return positive.to(ctx.dtype), None, None


class SurrogateGradient(Substitute):
    """Value ``value``; backward that of ``surrogate``, whose own value is not used."""

    @staticmethod
    def forward(surrogate: Tensor, value: Tensor) -> Tensor:  # noqa: ARG004
        """The value of the replaced call."""
        return value.detach()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ARG004
        """Saves the type of the surrogate."""
        ctx.dtype = inputs[0].dtype

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient, as that of the surrogate."""
        return gradients[0].to(ctx.dtype), None


def with_scaled_gradient(operand: Tensor, slope: Tensor, value: Tensor) -> Tensor:
    """``value`` with the gradient of an elementwise function of ``operand`` with this slope.

    Args:
        operand: Any shape that broadcasts to that of the value.
        slope: Of the shape of the value.
        value: The result of the call.
    """
    widened = operand if operand.shape == value.shape else operand.expand_as(value)
    return _apply(ScaledGradient, widened, slope, value)


def with_clamped_gradient(operand: Tensor, slope: Tensor | None, value: Tensor) -> Tensor:
    """``value`` with ``max(0, q) * slope``, or ``max(0, q)`` without a slope, as its backward."""
    return _apply(ClampedGradient, operand, slope, value)


def with_surrogate_gradient(surrogate: Tensor, value: Tensor) -> Tensor:
    """``value`` with the backward of ``surrogate``, a tensor of the same shape."""
    return _apply(SurrogateGradient, surrogate, value)


def with_surrogate_gradients(surrogate: Any, value: Any) -> Any:
    """The same for a tensor, or for each tensor of a tuple (attention output and weights)."""
    if isinstance(value, Tensor):
        return with_surrogate_gradient(surrogate, value) if surrogate.requires_grad else value
    if isinstance(value, tuple):
        pairs = zip(surrogate, value, strict=True)
        return tuple(with_surrogate_gradients(*pair) for pair in pairs)
    return value


def _apply(function: Any, *operands: Tensor | None) -> Tensor:
    result: Tensor = function.apply(*operands)
    return result


def custom_function_name(node: Node | None) -> str | None:
    """The name of the custom autograd function of a node; None for torch's and voxplain's own."""
    if not isinstance(node, torch.autograd.function.BackwardCFunction):
        return None
    owner: Any = getattr(type(node), "_forward_cls", type(node))
    if owner.__module__.startswith("voxplain."):
        return None
    return f"{owner.__module__}.{owner.__qualname__}"


def write_result(call: Call, result: Any) -> Any:
    """The result as the caller expects it: a new tensor, written in place, or into ``out``.

    ``copy_`` replaces the autograd history of the caller's tensor and of its views.
    """
    if call.out is not None:
        return call.out.copy_(result)
    if call.inplace:
        return next(call.operands()).copy_(result)
    return result
