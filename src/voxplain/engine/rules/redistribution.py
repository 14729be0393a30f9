"""Redistribution of relevance (LRP) and of winning probabilities (excitation backprop).

Under these rules the "gradient" q at y = f(operands) is a relevance or a probability, of which
every operand that depends on the image receives a part p. ``with_redistribution`` gives a call such
a backward; ``linear_map`` finds the map whose weights it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from voxplain.engine.rules.calls import Call, OperationKind, is_affine
from voxplain.engine.rules.substitutes import Substitute
from voxplain.errors import RuleError

Backward = Callable[..., Sequence[Tensor | None]]

SUMMING = ("sum", "mean", "nansum", "nanmean", "sum_to_size", "trace", "cumsum", "fold")
"""Linear functions that add elements of one operand with non-negative weights of their own."""


class Redistribution(Substitute):
    """Value ``value``; backward ``backward(q, *saved)``."""

    @staticmethod
    def forward(backward: Backward, count: int, value: Tensor, *tensors: Tensor) -> Tensor:  # noqa: ARG004
        """Returns the value of the call that was replaced."""
        return value.detach()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        """Saves the backward, the types of the operands and the tensors that the backward reads."""
        ctx.redistribute, ctx.count, _, *tensors = inputs
        ctx.dtypes = [operand.dtype for operand in tensors[: ctx.count]]
        ctx.saved_count = len(tensors) - ctx.count
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors[ctx.count :])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        """The redistribution of q to the operands; None for all of them if q is None."""
        parts: Sequence[Tensor | None] = [None] * ctx.count
        if gradients[0] is not None:
            parts = ctx.redistribute(gradients[0], *ctx.saved_tensors)
        typed = zip(parts, ctx.dtypes, strict=True)
        cast = [None if part is None else part.to(dtype) for part, dtype in typed]
        return (None, None, None, *cast, *[None] * ctx.saved_count)


def with_redistribution(
    value: Tensor, operands: Sequence[Tensor], backward: Backward, saved: Sequence[Tensor] = ()
) -> Tensor:
    """The value of a call with a redistribution to its operands as its backward.

    Args:
        value: The result of the call, detached.
        operands: The operands that receive a part, in their graph.
        backward: ``(q, *saved) -> (p_1, ..., p_n)``, each of the shape of its operand; it runs
            without a graph.
        saved: Detached tensors that the backward reads; torch raises if they are overwritten, so
            pass ``call.snapshot()`` of an operand that the call itself overwrites.

    Returns:
        The value in the graph, still to be passed to ``substitutes.write_result``.
    """
    function: Any = Redistribution
    result: Tensor = function.apply(backward, len(operands), value, *operands, *saved)
    return result


@dataclass(frozen=True, eq=False)
class LinearMap:
    """An affine function of one operand, as a linear function with a weight, and a bias.

    Attributes:
        function: ``(x, weight) -> y`` without bias.
        weight: Detached; None for functions with non-negative weights of their own.
        bias: Broadcastable to y, or None.
    """

    function: Callable[[Tensor, Tensor | None], Tensor]
    weight: Tensor | None = None
    bias: Tensor | None = None

    def apply(self, x: Tensor) -> Tensor:
        """The map without its bias; in a graph if x requires a gradient."""
        return self.function(x, _cast_like(self.weight, x))

    def value_and_adjoint(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The value at x without bias, and the adjoint ``q -> W^T q``, which can be used once.

        Args:
            x: Of the shape and type of the operand.
        """
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            value = self.apply(leaf)

        def adjoint(q: Tensor) -> Tensor:
            (result,) = torch.autograd.grad(value, leaf, q.to(value.dtype))
            return result

        return value.detach(), adjoint

    def adjoint(self, q: Tensor, x: Tensor) -> Tensor:
        """The adjoint ``W^T q``.

        Args:
            q: Of the shape of the value.
            x: Any tensor of the shape and type of the operand.
        """
        return self.value_and_adjoint(x)[1](q)

    def with_weight(self, change: Callable[[Tensor], Tensor]) -> LinearMap:
        """The same map with another weight, ``clamp(min=0)`` say, and the same bias."""
        if self.weight is None:
            return self
        return replace(self, weight=change(self.weight))


def linear_map(call: Call, operand: str | int = "input") -> LinearMap | None:
    """A call as a linear map of one operand.

    Convolutions, transposed convolutions, linear layers, products with a constant, matrix
    products with one fixed operand, norms with stored statistics, pooling to the mean, linear
    interpolation, sums and means.

    Args:
        call: A call whose other operands are fixed, or are to be held fixed.
        operand: The argument it is linear in; for einsum the number of the operand.

    Returns:
        The map; None if every output is a copy of one input or a constant (views, ``cat``, ``pad``,
        indexing, nearest interpolation), so that torch's own derivative is the redistribution.

    Raises:
        RuleError: If the call is not linear in one operand alone.
    """
    if (
        call.kind is OperationKind.LINEAR
        and call.name not in _UNSUPPORTED
        and call.name not in SUMMING
    ):
        return None
    if call.kind is OperationKind.LINEAR_IN_FIRST and _interpolation_mode(call).startswith(
        "nearest"
    ):
        return None
    build = _MAPS.get(call.kind)
    built = build(call.detached(), operand) if build and call.name not in _UNSUPPORTED else None
    if built is None:
        raise RuleError(f"{call.name} is not a linear map of one operand with known weights")
    return built


def only_operand(call: Call) -> Any:
    """The operand of a call with a single operand."""
    return call.arguments["operands"][0] if call.get("operands") else call.arguments["input"]


def _weighted_map(call: Call, operand: str | int) -> LinearMap | None:
    if operand != "input":
        return None
    rest = {
        name: value for name, value in call.arguments.items() if name not in _WEIGHTED_ARGUMENTS
    }

    def function(x: Tensor, weight: Tensor | None) -> Tensor:
        result: Tensor = call.operation.pure(input=x, weight=weight, bias=None, **rest)
        return result

    bias = call.get("bias")
    if bias is not None and call.name != "linear":
        spatial = call.arguments["weight"].dim() - 2
        bias = bias.reshape(-1, *[1] * spatial)
    return LinearMap(function, call.arguments["weight"], bias)


def _factor_map(call: Call, operand: str | int) -> LinearMap | None:
    """X times a constant, or divided by one."""
    other = call.arguments["other" if operand == "input" else "input"]
    factor = torch.as_tensor(other)
    if call.kind is OperationKind.QUOTIENT:
        if operand != "input" or call.name == "rdiv" or call.get("rounding_mode") is not None:
            return None
        factor = 1 / factor
    return LinearMap(_multiply, factor)


def _multiply(x: Tensor, weight: Tensor | None) -> Tensor:
    return x if weight is None else x * weight


def _bilinear_map(call: Call, operand: str | int) -> LinearMap | None:
    if call.name == "einsum":
        return _einsum_map(call, operand)
    pair = call.operation.parameters[:2]
    if operand not in pair or call.name == "bilinear":
        return None
    fixed = pair[1] if operand == pair[0] else pair[0]
    rest = {name: value for name, value in call.arguments.items() if name not in pair}

    def function(x: Tensor, weight: Tensor | None) -> Tensor:
        result: Tensor = call.operation.pure(**{str(operand): x, fixed: weight}, **rest)
        return result

    return LinearMap(function, call.arguments[fixed])


def _einsum_map(call: Call, operand: str | int) -> LinearMap | None:
    operands = list(call.arguments["operands"])
    position = operand if isinstance(operand, int) else 0
    fixed = [index for index in range(len(operands)) if index != position]
    if len(fixed) > 1:
        return None

    def function(x: Tensor, weight: Tensor | None) -> Tensor:
        factors = [x if index == position else weight for index in range(len(operands))]
        return torch.einsum(call.arguments["equation"], *factors)

    return LinearMap(function, operands[fixed[0]] if fixed else None)


def _norm_map(call: Call, operand: str | int) -> LinearMap | None:
    """A norm with stored statistics: a scale and a shift per channel."""
    if not is_affine(call) or operand != "input":
        return None
    mean, variance = call.arguments["running_mean"], call.arguments["running_var"]
    eps = call.get("eps")
    scale = (variance + (1e-5 if eps is None else eps)).rsqrt()
    if (weight := call.get("weight")) is not None:
        scale = scale * weight
    shift = -mean * scale
    if (bias := call.get("bias")) is not None:
        shift = shift + bias
    columns = (-1, *[1] * (call.input.dim() - 2))
    return LinearMap(_multiply, scale.reshape(columns), shift.reshape(columns))


def _fixed_weights(call: Call, operand: str | int) -> LinearMap | None:  # noqa: ARG001
    """Functions with weights of their own: pooling, interpolation, sums."""
    if _interpolation_mode(call) in ("bicubic", "lanczos"):
        return None
    positional, keywords = _remaining_arguments(call)

    def function(x: Tensor, weight: Tensor | None) -> Tensor:  # noqa: ARG001
        result: Tensor = call.operation.pure(x, *positional, **keywords)
        return result

    return LinearMap(function)


def _remaining_arguments(call: Call) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments after the first operand, positional and by keyword."""
    parameters = [name.lstrip("*") for name in call.operation.parameters]
    keywords = {
        name: value for name, value in call.arguments.items() if name not in (*parameters, "input")
    }
    if "operands" in parameters:
        operands = call.get("operands", ())
        return (operands[1:] if "input" not in call.arguments else operands), keywords
    return call.get("others", ()), keywords


def _interpolation_mode(call: Call) -> str:
    """The interpolation mode of a resampling function."""
    if call.name not in ("interpolate", "upsample", "grid_sample"):
        return "nearest" if call.name in ("upsample_nearest", "embedding") else ""
    position = 1 if call.name == "grid_sample" else 2
    others = call.get("others", ())
    default = "bilinear" if call.name == "grid_sample" else "nearest"
    return str(call.get("mode", others[position] if len(others) > position else default))


def _cast_like(weight: Tensor | None, x: Tensor) -> Tensor | None:
    return None if weight is None else weight.to(x.dtype)


_WEIGHTED_ARGUMENTS = ("input", "weight", "bias")
_UNSUPPORTED = (
    *("add", "sub", "subtract", "rsub", "neg", "negative", "diff", "index_add", "scatter_add"),
    *("__add__", "__radd__", "__iadd__", "__sub__", "__rsub__", "__isub__", "__neg__"),
    *("masked_scatter", "affine_grid", "fft", "ifft", "fft2", "ifft2", "fftn", "ifftn", "rfft"),
    *("irfft", "rfft2", "irfft2", "rfftn", "irfftn", "real", "imag", "conj", "conj_physical"),
)
_MAPS: dict[OperationKind, Callable[[Call, str | int], LinearMap | None]] = {
    OperationKind.WEIGHTED: _weighted_map,
    OperationKind.PRODUCT: _factor_map,
    OperationKind.QUOTIENT: _factor_map,
    OperationKind.BILINEAR: _bilinear_map,
    OperationKind.NORM: _norm_map,
    OperationKind.LINEAR: _fixed_weights,
    OperationKind.LINEAR_IN_FIRST: _fixed_weights,
}
