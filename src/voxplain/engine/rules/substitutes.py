"""The autograd functions that stand in the graph for a call: value of the call, other backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from voxplain.engine.rules.calls import Call


class Substitute(torch.autograd.Function):
    """Base of the functions below; all they need lives in the ``ctx`` of one call.

    The value is returned through ``detach``, which shares its memory but is no view of an input,
    so that a later in-place operation on it is allowed as it is on an ordinary result.
    """

    generate_vmap_rule = True


class Scaled(Substitute):
    """Value ``value``; backward ``q * slope``."""

    @staticmethod
    def forward(operand: Tensor, slope: Tensor, value: Tensor) -> Tensor:  # noqa: ARG004
        """Returns the value of the call that was replaced."""
        return value.detach()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ARG004
        """Keeps the slope."""
        operand, slope, _ = inputs
        ctx.dtype = operand.dtype
        ctx.save_for_backward(slope)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Multiplies by the slope."""
        (slope,) = ctx.saved_tensors
        return (gradients[0] * slope).to(ctx.dtype), None, None


class Clamped(Substitute):
    """Value ``value``; backward ``max(0, q) * slope``, and ``max(0, q)`` without a slope."""

    @staticmethod
    def forward(operand: Tensor, slope: Tensor | None, value: Tensor) -> Tensor:  # noqa: ARG004
        """Returns the value of the call that was replaced."""
        return value.detach()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        """Keeps the slope where there is one."""
        operand, slope, _ = inputs
        ctx.dtype = operand.dtype
        ctx.has_slope = slope is not None
        if slope is not None:
            ctx.save_for_backward(slope)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Lets only the positive part of the gradient pass."""
        positive = gradients[0].clamp(min=0)
        if ctx.has_slope:
            positive = positive * ctx.saved_tensors[0]
        return positive.to(ctx.dtype), None, None


class Grafted(Substitute):
    """Value ``value``; backward that of ``stand_in``, a graph whose own value does not matter."""

    @staticmethod
    def forward(stand_in: Tensor, value: Tensor) -> Tensor:  # noqa: ARG004
        """Returns the value of the call that was replaced."""
        return value.detach()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ARG004
        """Keeps the type in which the stand-in was computed."""
        ctx.dtype = inputs[0].dtype

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Hands the gradient on to the stand-in."""
        return gradients[0].to(ctx.dtype), None


def scaled(operand: Tensor, slope: Tensor, value: Tensor) -> Tensor:
    """``value`` in the graph as an elementwise function of ``operand`` with this slope.

    Args:
        operand: Any shape that broadcasts to the value's.
        slope: Shape of the value.
        value: The result of the call.
    """
    widened = operand if operand.shape == value.shape else operand.expand_as(value)
    return _applied(Scaled, widened, slope, value)


def clamped(operand: Tensor, slope: Tensor | None, value: Tensor) -> Tensor:
    """``value`` in the graph with ``max(0, q) * slope`` (or ``max(0, q)``) as its backward."""
    return _applied(Clamped, operand, slope, value)


def grafted(stand_in: Tensor, value: Tensor) -> Tensor:
    """``value`` in the graph with the backward of ``stand_in``; shapes are equal."""
    return _applied(Grafted, stand_in, value)


def grafted_all(stand_in: Any, value: Any) -> Any:
    """Grafts a tensor, or each tensor of a tuple (attention output and weights)."""
    if isinstance(value, Tensor):
        return grafted(stand_in, value) if stand_in.requires_grad else value
    if isinstance(value, tuple):
        pairs = zip(stand_in, value, strict=True)
        return tuple(grafted_all(part, whole) for part, whole in pairs)
    return value


def _applied(function: Any, *operands: Tensor | None) -> Tensor:
    result: Tensor = function.apply(*operands)
    return result


def foreign_function(node: Node | None) -> str | None:
    """The name of a custom autograd function that is not one of voxplain's, else None."""
    if not isinstance(node, torch.autograd.function.BackwardCFunction):
        return None
    owner: Any = getattr(type(node), "_forward_cls", type(node))
    if owner.__module__.startswith("voxplain."):
        return None
    return f"{owner.__module__}.{owner.__qualname__}"


def written(call: Call, result: Any) -> Any:
    """Hands a result to the caller the way it was asked for: new, in place or into ``out``.

    ``copy_`` moves the whole history of the caller's tensor, views included, to the result.
    """
    if call.out is not None:
        return call.out.copy_(result)
    if call.inplace:
        return next(call.operands()).copy_(result)
    return result
