"""What rules share that hand on a quantity instead of a gradient: Excitation and LRP.

Under such a rule the "gradient" q at y = f(operands) is a probability or a relevance, and every
operand that depends on the image receives its share p of it. Two tools do this:

``redistributed(value, operands, backward, kept)``
    The value of a call in the graph, with ``backward(q, *kept) -> (p_1, ..., p_n)`` as its
    backward, one share per operand (``None`` for no share). ``kept`` are tensors outside the
    graph that the backward reads; torch checks that nobody overwrites them, so an operand that the
    call itself writes in place is kept as a copy (``call.kept()``). Shares have the shapes of their
    operands. The result still has to go through ``rectifiers.written``.

``linear_map(call)``
    A call that is linear in one operand as a :class:`LinearMap`: ``apply(x)`` (no bias),
    ``transposed(q, x)`` (the adjoint), ``linearized(x)`` (both at the price of one),
    ``with_weight(fn)`` (the same map with another weight), ``bias`` (broadcastable to the output).
    ``weight`` is None where the function itself weighs, non-negatively, as a mean does.
    None where torch's own derivative is the redistribution already, as every output is a copy of
    one input or a constant: views, ``cat``, ``pad``, indexing, repeating, nearest interpolation.
    ``add`` and ``sub`` of two operands are no maps of one operand.
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

Shares = Sequence[Tensor | None]
Backward = Callable[..., Shares]

SUMMING = ("sum", "mean", "nansum", "nanmean", "sum_to_size", "trace", "cumsum", "fold")
"""Functions of the linear family that add entries of one operand with weights of their own."""


class Redistributed(Substitute):
    """Value ``value``; backward whatever the call's ``backward`` makes of q."""

    @staticmethod
    def forward(backward: Backward, count: int, value: Tensor, *tensors: Tensor) -> Tensor:  # noqa: ARG004
        """Returns the value of the call that was replaced."""
        return value.detach()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        """Keeps the backward, the types of the operands and what the backward reads."""
        ctx.shared, ctx.count, _, *tensors = inputs
        ctx.dtypes = [operand.dtype for operand in tensors[: ctx.count]]
        ctx.spare = len(tensors) - ctx.count
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors[ctx.count :])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        """Hands q to the operands; where nothing arrives nothing is handed on."""
        shares: Shares = [None] * ctx.count
        if gradients[0] is not None:
            shares = ctx.shared(gradients[0], *ctx.saved_tensors)
        typed = zip(shares, ctx.dtypes, strict=True)
        cast = [None if share is None else share.to(dtype) for share, dtype in typed]
        return (None, None, None, *cast, *[None] * ctx.spare)


def redistributed(
    value: Tensor, operands: Sequence[Tensor], backward: Backward, kept: Sequence[Tensor] = ()
) -> Tensor:
    """The value of a call in the graph, its backward replaced.

    Args:
        value: The result of the call, outside the graph.
        operands: In the graph; those that take part in the redistribution.
        backward: ``(q, *kept) -> (p_1, ..., p_n)``, shapes of the operands; runs without a graph.
        kept: Tensors outside the graph that the backward reads.
    """
    function: Any = Redistributed
    result: Tensor = function.apply(backward, len(operands), value, *operands, *kept)
    return result


@dataclass(frozen=True, eq=False)
class LinearMap:
    """A linear function of one operand, with its weight set apart.

    Attributes:
        function: ``(x, weight) -> y`` without bias.
        weight: Outside the graph; None where it belongs to the function and is non-negative.
        bias: Broadcastable to y, or None.
    """

    function: Callable[[Tensor, Tensor | None], Tensor]
    weight: Tensor | None = None
    bias: Tensor | None = None

    def apply(self, x: Tensor) -> Tensor:
        """The map without its bias; in a graph if x is."""
        return self.function(x, _like(self.weight, x))

    def linearized(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The value at x without bias, and the adjoint ``q -> W^T q``, which can be used once.

        Args:
            x: Shape and type of the operand; any values.
        """
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            value = self.apply(leaf)

        def transposed(q: Tensor) -> Tensor:
            (share,) = torch.autograd.grad(value, leaf, q.to(value.dtype))
            return share

        return value.detach(), transposed

    def transposed(self, q: Tensor, x: Tensor) -> Tensor:
        """The adjoint ``W^T q``.

        Args:
            q: Shape of the value.
            x: Any tensor with shape and type of the operand.
        """
        return self.linearized(x)[1](q)

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
        call: A call whose other operands are fixed, or to be held fixed.
        operand: The argument it is linear in; for einsum the number of the operand.

    Returns:
        The map; None where every output is a copy of one input or a constant.

    Raises:
        RuleError: For a call that is not linear in one operand alone.
    """
    if (
        call.family is OperationKind.LINEAR
        and call.name not in _UNSUITED
        and call.name not in SUMMING
    ):
        return None
    if call.family is OperationKind.LINEAR_IN_FIRST and _mode(call).startswith("nearest"):
        return None
    build = _MAPS.get(call.family)
    found = build(call.detached(), operand) if build and call.name not in _UNSUITED else None
    if found is None:
        raise RuleError(f"{call.name} is no linear map of one operand with weights that are known")
    return found


def signal_of(call: Call) -> Any:
    """The operand of a call of one operand."""
    return call.arguments["operands"][0] if call.get("operands") else call.arguments["input"]


def _weighted(call: Call, operand: str | int) -> LinearMap | None:
    if operand != "input":
        return None
    rest = {key: part for key, part in call.arguments.items() if key not in _MAIN}

    def function(x: Tensor, weight: Tensor | None) -> Tensor:
        result: Tensor = call.operation.pure(input=x, weight=weight, bias=None, **rest)
        return result

    bias = call.get("bias")
    if bias is not None and call.name != "linear":
        spatial = call.arguments["weight"].dim() - 2
        bias = bias.reshape(-1, *[1] * spatial)
    return LinearMap(function, call.arguments["weight"], bias)


def _factor(call: Call, operand: str | int) -> LinearMap | None:
    """X times a constant, or over one."""
    other = call.arguments["other" if operand == "input" else "input"]
    factor = torch.as_tensor(other)
    if call.family is OperationKind.QUOTIENT:
        if operand != "input" or call.name == "rdiv" or call.get("rounding_mode") is not None:
            return None
        factor = 1 / factor
    return LinearMap(_times, factor)


def _times(x: Tensor, weight: Tensor | None) -> Tensor:
    return x if weight is None else x * weight


def _bilinear(call: Call, operand: str | int) -> LinearMap | None:
    if call.name == "einsum":
        return _einsum(call, operand)
    pair = call.operation.parameters[:2]
    if operand not in pair or call.name == "bilinear":
        return None
    fixed = pair[1] if operand == pair[0] else pair[0]
    rest = {key: part for key, part in call.arguments.items() if key not in pair}

    def function(x: Tensor, weight: Tensor | None) -> Tensor:
        result: Tensor = call.operation.pure(**{str(operand): x, fixed: weight}, **rest)
        return result

    return LinearMap(function, call.arguments[fixed])


def _einsum(call: Call, operand: str | int) -> LinearMap | None:
    operands = list(call.arguments["operands"])
    at = operand if isinstance(operand, int) else 0
    fixed = [index for index in range(len(operands)) if index != at]
    if len(fixed) > 1:
        return None

    def function(x: Tensor, weight: Tensor | None) -> Tensor:
        parts = [x if index == at else weight for index in range(len(operands))]
        return torch.einsum(call.arguments["equation"], *parts)

    return LinearMap(function, operands[fixed[0]] if fixed else None)


def _norm(call: Call, operand: str | int) -> LinearMap | None:
    """Stored statistics make a norm a scale and a shift per channel."""
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
    return LinearMap(_times, scale.reshape(columns), shift.reshape(columns))


def _structural(call: Call, operand: str | int) -> LinearMap | None:  # noqa: ARG001
    """Weights of the function itself: pooling, interpolation, sums."""
    if _mode(call) in ("bicubic", "lanczos"):
        return None
    positional, named = _again(call)

    def function(x: Tensor, weight: Tensor | None) -> Tensor:  # noqa: ARG001
        result: Tensor = call.operation.pure(x, *positional, **named)
        return result

    return LinearMap(function)


def _again(call: Call) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments after the first operand, as they were given."""
    listed = [name.lstrip("*") for name in call.operation.parameters]
    named = {key: part for key, part in call.arguments.items() if key not in (*listed, "input")}
    if "operands" in listed:
        given = call.get("operands", ())
        return (given[1:] if "input" not in call.arguments else given), named
    return call.get("others", ()), named


def _mode(call: Call) -> str:
    """The interpolation that a resampling function was asked for."""
    if call.name not in ("interpolate", "upsample", "grid_sample"):
        return "nearest" if call.name in ("upsample_nearest", "embedding") else ""
    place = 1 if call.name == "grid_sample" else 2
    others = call.get("others", ())
    default = "bilinear" if call.name == "grid_sample" else "nearest"
    return str(call.get("mode", others[place] if len(others) > place else default))


def _like(weight: Tensor | None, x: Tensor) -> Tensor | None:
    return None if weight is None else weight.to(x.dtype)


_MAIN = ("input", "weight", "bias")
_UNSUITED = (
    *("add", "sub", "subtract", "rsub", "neg", "negative", "diff", "index_add", "scatter_add"),
    *("__add__", "__radd__", "__iadd__", "__sub__", "__rsub__", "__isub__", "__neg__"),
    *("masked_scatter", "affine_grid", "fft", "ifft", "fft2", "ifft2", "fftn", "ifftn", "rfft"),
    *("irfft", "rfft2", "irfft2", "rfftn", "irfftn", "real", "imag", "conj", "conj_physical"),
)
_MAPS: dict[OperationKind, Callable[[Call, str | int], LinearMap | None]] = {
    OperationKind.WEIGHTED: _weighted,
    OperationKind.PRODUCT: _factor,
    OperationKind.QUOTIENT: _factor,
    OperationKind.BILINEAR: _bilinear,
    OperationKind.NORM: _norm,
    OperationKind.LINEAR: _structural,
    OperationKind.LINEAR_IN_FIRST: _structural,
}
