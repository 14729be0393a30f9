"""Excitation backprop of each kind of call, given which of its operands depend on the image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from voxplain.engine.rules.calls import Call, OperationKind
from voxplain.engine.rules.excitation import shares
from voxplain.engine.rules.mode import RuleMode
from voxplain.engine.rules.redistribution import SUMMING, LinearMap, linear_map, only_operand
from voxplain.engine.rules.substitutes import with_surrogate_gradient
from voxplain.engine.tensors import tensors_in
from voxplain.errors import RuleError

Native = Callable[[], Any]
Outcome = Any
"""Result; ``NotImplemented`` for torch's own derivative; a description of a call without rule."""


class ExcitationMode(RuleMode):
    """Mode of a forward under excitation backprop, with the state that the rules below read.

    Attributes:
        gates: Tensors that only scale others.
        lost: Winning probability that could not be redistributed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gates, self.lost = shares.Gates(), shares.LostProbability()


def redistribute(mode: ExcitationMode, call: Call, native: Native) -> Outcome:
    """The value of a call with the redistribution of its winning probability as the backward.

    Args:
        mode: The mode.
        call: With an operand that depends on the image; no attention and no composite function.
        native: Runs the call.
    """
    return _RULES[call.kind](mode, call, native)


def _pass_unchanged(mode: ExcitationMode, call: Call, native: Native) -> Outcome:
    """Rectifiers, squashing functions, softmaxes and norms pass probability unchanged."""
    operand = call.input
    others = [value for name, value in call.arguments.items() if name != "input"]
    if call.name in ("logsumexp", "var") or not mode.depends(operand):
        return call.name
    if call.kind is not OperationKind.NORM and mode.depends(*tensors_in(others)):
        return f"{call.name} with a second operand that depends on the image"
    value = _value(call, native)
    return with_surrogate_gradient(operand, value) if value.shape == operand.shape else call.name


def _weighted(mode: ExcitationMode, call: Call, native: Native) -> Outcome:
    others = [value for name, value in call.arguments.items() if name != "input"]
    if mode.depends(*tensors_in(others)):
        return f"{call.name} with weights that depend on the image"
    return _through_weights(mode, call, native, call.input, "input")


def _bilinear(mode: ExcitationMode, call: Call, native: Native) -> Outcome:
    """All probability to the operand that is the signal; the other one is its fixed weight."""
    if call.name == "einsum":
        keys: tuple[Any, ...] = tuple(range(len(call.arguments["operands"])))
        operands = call.arguments["operands"]
    else:
        keys = call.operation.parameters[:2]
        operands = [call.arguments[key] for key in keys]
    signal = mode.gates.signal(mode, *operands)
    if signal is None:
        return f"{call.name} of two operands that depend on the image, neither of them a gate"
    return _through_weights(mode, call, native, operands[signal], keys[signal])


def _through_weights(
    mode: ExcitationMode, call: Call, native: Native, operand: Tensor, key: str | int
) -> Outcome:
    snapshot = call.snapshot()
    linear = _linear_map_or_none(snapshot, key)
    if linear is None:
        return call.name
    arguments = snapshot.arguments
    saved = arguments["operands"][key] if isinstance(key, int) else arguments[key]
    through = shares.through_sums if linear.weight is None else shares.through_weights
    return through(_value(call, native), operand, saved, linear, mode.lost)


def _product(mode: ExcitationMode, call: Call, native: Native) -> Outcome:
    names = ("input", "other")
    operands = [call.arguments[name] for name in names]
    signal = mode.gates.signal(mode, *operands)
    if signal is None:
        return f"{call.name} of two operands that depend on the image, neither of them a gate"
    factor = _as_tensor(call.snapshot().arguments[names[1 - signal]], operands[signal])
    return shares.through_factor(_value(call, native), operands[signal], factor, mode.lost)


def _quotient(mode: ExcitationMode, call: Call, native: Native) -> Outcome:
    """All probability to the numerator; the denominator is held fixed, as a gate is."""
    above, below = ("other", "input") if call.name == "rdiv" else ("input", "other")
    if call.get("rounding_mode") is not None or not mode.depends(call.arguments[above]):
        return f"{call.name} by what depends on the image"
    operand = call.arguments[above]
    factor = _as_tensor(call.snapshot().arguments[below], operand)
    return shares.through_factor(_value(call, native), operand, factor, mode.lost)


def _linear(mode: ExcitationMode, call: Call, native: Native) -> Outcome:
    if call.name in _SIGNS:
        return _sum_of_terms(mode, call, native)
    if call.name in _NEGATIONS:
        operand, saved = only_operand(call), only_operand(call.snapshot())
        return shares.through_terms(_value(call, native), (operand,), (saved,), (-1.0,), mode.lost)
    if call.name in _UNSUPPORTED:
        return call.name
    if call.name in SUMMING:
        return _linear_sum(mode, call, native, only_operand(call))
    return NotImplemented


def _sum_of_terms(mode: ExcitationMode, call: Call, native: Native) -> Outcome:
    """Sums and differences of two terms; a term that is constant in the image gets nothing."""
    snapshot = call.snapshot()
    signs: tuple[float, ...] = _SIGNS[call.name]
    alpha = float(call.get("alpha", 1))
    signs = (signs[0] * alpha, signs[1]) if call.name == "rsub" else (signs[0], signs[1] * alpha)
    terms = zip(_two_terms(call), _two_terms(snapshot), signs, strict=True)
    dependent = [(term, saved, sign) for term, saved, sign in terms if mode.depends(term)]
    if len(dependent) == 1 and dependent[0][2] > 0:
        return NotImplemented if alpha == 1 else _single_term(mode, call, native, dependent[0][0])
    operands, saved, signs = zip(*dependent, strict=True)
    return shares.through_terms(_value(call, native), operands, saved, signs, mode.lost)


def _single_term(mode: ExcitationMode, call: Call, native: Native, operand: Tensor) -> Tensor:
    one = torch.ones((), dtype=operand.dtype, device=operand.device)
    return shares.through_factor(_value(call, native), operand, one, mode.lost)


def _two_terms(call: Call) -> tuple[Any, Any]:
    """Both terms, passed by position or by name."""
    positional = list(call.get("operands", ()))
    named = [call.arguments[name] for name in ("input", "other") if name in call.arguments]
    first, second, *_ = [*positional, *named]
    return first, second


def _resampling(mode: ExcitationMode, call: Call, native: Native) -> Outcome:
    if mode.depends(*tensors_in(call.get("others", ()))) or not mode.depends(call.input):
        return f"{call.name} with a second operand that depends on the image"
    return _linear_sum(mode, call, native, call.input)


def _linear_sum(mode: ExcitationMode, call: Call, native: Native, operand: Tensor) -> Outcome:
    if not mode.depends(operand):
        return call.name
    snapshot = call.snapshot()
    try:
        linear = linear_map(snapshot)
    except RuleError:
        return call.name
    if linear is None:
        return NotImplemented
    saved = only_operand(snapshot)
    return shares.through_sums(_value(call, native), operand, saved, linear, mode.lost)


def _dropout(mode: ExcitationMode, call: Call, native: Native) -> Outcome:  # noqa: ARG001
    active = call.get("training", True) and call.get("p", 0.5) > 0
    return f"{call.name} in training mode" if active else NotImplemented


def _native_gradient(mode: ExcitationMode, call: Call, native: Native) -> Outcome:  # noqa: ARG001
    """Torch's own derivative: all probability to what was selected, the winner of a maximum say."""
    return NotImplemented


def _no_rule(mode: ExcitationMode, call: Call, native: Native) -> Outcome:  # noqa: ARG001
    return call.name


def _linear_map_or_none(call: Call, key: str | int) -> LinearMap | None:
    try:
        return linear_map(call, key)
    except RuleError:
        return None


def _value(call: Call, native: Native) -> Tensor:
    """The result, detached; the caller's tensor is not written to yet."""
    with torch.no_grad():
        if not call.inplace and call.out is None:
            value: Tensor = native()
            return value.detach()
        snapshot = call.snapshot()
        if call.name in _SIGNS:
            first, second = _two_terms(snapshot)
            pure = torch.add if sum(_SIGNS[call.name]) == 2 else torch.sub
            return pure(first, second, alpha=call.get("alpha", 1))
        operands = snapshot.arguments["operands"] if call.kind is OperationKind.LINEAR else None
        result: Tensor = snapshot.operation.pure(*operands) if operands else snapshot.run()
        return result


def _as_tensor(factor: Any, like: Tensor) -> Tensor:
    return factor if isinstance(factor, Tensor) else like.new_tensor(factor)


_SIGNS = {
    **dict.fromkeys(("add", "__add__", "__radd__", "__iadd__"), (1.0, 1.0)),
    **dict.fromkeys(("sub", "subtract", "__sub__", "__isub__"), (1.0, -1.0)),
    **dict.fromkeys(("rsub", "__rsub__"), (-1.0, 1.0)),
}
_NEGATIONS = ("neg", "negative", "__neg__")
_UNSUPPORTED = (
    *("diff", "index_add", "scatter_add", "block_diag", "fft", "ifft", "fft2", "ifft2", "fftn"),
    *("ifftn", "rfft", "irfft", "rfft2", "irfft2", "rfftn", "irfftn"),
)
_RULES: dict[OperationKind, Callable[[ExcitationMode, Call, Native], Outcome]] = {
    OperationKind.RECTIFIER: _pass_unchanged,
    OperationKind.SQUASHING: _pass_unchanged,
    OperationKind.SOFTMAX: _pass_unchanged,
    OperationKind.NORM: _pass_unchanged,
    OperationKind.ELEMENTWISE: _no_rule,
    OperationKind.PRODUCT: _product,
    OperationKind.QUOTIENT: _quotient,
    OperationKind.BILINEAR: _bilinear,
    OperationKind.WEIGHTED: _weighted,
    OperationKind.SELECT: _native_gradient,
    OperationKind.MAXIMUM: _native_gradient,
    OperationKind.COMPOSITE: _native_gradient,
    OperationKind.DROPOUT: _dropout,
    OperationKind.LINEAR: _linear,
    OperationKind.LINEAR_IN_FIRST: _resampling,
}
