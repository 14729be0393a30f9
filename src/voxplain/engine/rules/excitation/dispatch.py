"""Which share rule of Excitation backprop a call gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from voxplain.engine.rules.calls import Call, OperationKind
from voxplain.engine.rules.excitation import shares as winners
from voxplain.engine.rules.excitation.gates import Gates
from voxplain.engine.rules.mode import RuleMode
from voxplain.engine.rules.redistribution import SUMMING, LinearMap, linear_map, signal_of
from voxplain.engine.rules.substitutes import grafted
from voxplain.engine.tensors import is_floating, map_tensors, tensors_in
from voxplain.errors import RuleError

Native = Callable[[], Any]
Found = Any
"""The value in the graph, ``NotImplemented`` for torch's own derivative, or what has no rule."""


class EvidenceMode(RuleMode):
    """A mode that knows gates.

    Attributes:
        gates: Which tensors only scale others.
        lost: Evidence that could not be handed on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gates, self.lost = Gates(), winners.Lost()


def shared_out(mode: EvidenceMode, call: Call, native: Native) -> Found:
    """The value of a call with its shares as the backward.

    Args:
        mode: Knows what depends on the image, and the gates.
        call: With an operand that depends on the image; no attention and no composite.
        native: Runs the call.
    """
    return _RULES[call.family](mode, call, native)


def _passed(mode: EvidenceMode, call: Call, native: Native) -> Found:
    """Rectifiers, squashing functions, softmaxes and norms hand on what they get."""
    operand = call.input
    others = [part for key, part in call.arguments.items() if key != "input"]
    if call.name in ("logsumexp", "var") or not mode.depends(operand):
        return call.name
    if call.family is not OperationKind.NORM and mode.depends(*tensors_in(others)):
        return f"{call.name} with a second operand that depends on the image"
    value = _value(call, native)
    return grafted(operand, value) if value.shape == operand.shape else call.name


def _weighted(mode: EvidenceMode, call: Call, native: Native) -> Found:
    others = [part for key, part in call.arguments.items() if key != "input"]
    if mode.depends(*tensors_in(others)):
        return f"{call.name} with weights that depend on the image"
    return _over_weights(mode, call, native, call.input, "input")


def _bilinear(mode: EvidenceMode, call: Call, native: Native) -> Found:
    """One operand carries the signal, the other its fixed weights, as in attention."""
    if call.name == "einsum":
        keys: tuple[Any, ...] = tuple(range(len(call.arguments["operands"])))
        operands = call.arguments["operands"]
    else:
        keys = call.operation.parameters[:2]
        operands = [call.arguments[key] for key in keys]
    signal = mode.gates.signal(mode, *operands)
    if signal is None:
        return f"{call.name} of two operands that depend on the image, neither of them a gate"
    return _over_weights(mode, call, native, operands[signal], keys[signal])


def _over_weights(
    mode: EvidenceMode, call: Call, native: Native, operand: Tensor, key: str | int
) -> Found:
    kept = call.kept()
    linear = _map_of(kept, key)
    if linear is None:
        return call.name
    seen = kept.arguments["operands"][key] if isinstance(key, int) else kept.arguments[key]
    share = winners.over_sums if linear.weight is None else winners.over_weights
    return share(_value(call, native), operand, seen, linear, mode.lost)


def _product(mode: EvidenceMode, call: Call, native: Native) -> Found:
    names = ("input", "other")
    operands = [call.arguments[name] for name in names]
    signal = mode.gates.signal(mode, *operands)
    if signal is None:
        return f"{call.name} of two operands that depend on the image, neither of them a gate"
    factor = _tensor(call.kept().arguments[names[1 - signal]], operands[signal])
    return winners.over_factor(_value(call, native), operands[signal], factor, mode.lost)


def _quotient(mode: EvidenceMode, call: Call, native: Native) -> Found:
    """All to the numerator; the denominator is held fixed, as a gate is."""
    above, below = ("other", "input") if call.name == "rdiv" else ("input", "other")
    if call.get("rounding_mode") is not None or not mode.depends(call.arguments[above]):
        return f"{call.name} by what depends on the image"
    operand = call.arguments[above]
    factor = _tensor(call.kept().arguments[below], operand)
    return winners.over_factor(_value(call, native), operand, factor, mode.lost)


def _linear(mode: EvidenceMode, call: Call, native: Native) -> Found:
    if call.name in _TERMS:
        return _sum_of_terms(mode, call, native)
    if call.name in _NEGATIONS:
        operand = signal_of(call)
        kept = signal_of(call.kept())
        return winners.over_branches(_value(call, native), (operand,), (kept,), (-1.0,), mode.lost)
    if call.name in _UNTREATED:
        return call.name
    if call.name in SUMMING:
        return _summed(mode, call, native, signal_of(call))
    return _selected(mode, call, native) if call.name in _JOINING else NotImplemented


def _selected(mode: EvidenceMode, call: Call, native: Native) -> Found:
    """As in autograd; what goes to a constant, a class token or a filled voxel, is booked."""
    if call.inplace or call.out is not None or not _has_constants(mode, call):
        return NotImplemented
    marked = map_tensors(call.arguments, lambda tensor: _mark(mode, tensor))
    for key in ("input", "other", "value"):
        if isinstance(marked.get(key), (int, float)):
            marked[key] = 1.0
    pure = call.operation.pure

    def constants() -> Tensor:
        if "operands" not in marked:
            found: Tensor = pure(**marked)
            return found
        listed = marked["operands"]
        single = all(isinstance(part, Tensor) for part in listed)
        rest = {key: part for key, part in marked.items() if key != "operands"}
        joined: Tensor = pure(listed, **rest) if single else pure(*listed, **rest)
        return joined

    return winners.past_constants(native(), constants, mode.lost)


def _has_constants(mode: EvidenceMode, call: Call) -> bool:
    fixed = (part for part in call.operands() if is_floating(part) and not mode.depends(part))
    return next(fixed, None) is not None or call.name in ("masked_fill", "where")


def _mark(mode: EvidenceMode, tensor: Tensor) -> Tensor:
    """0 for what depends on the image and 1 for what does not, without memory of its own."""
    if not is_floating(tensor):
        return tensor
    return tensor.detach().new_tensor(0.0 if mode.depends(tensor) else 1.0).expand(tensor.shape)


def _sum_of_terms(mode: EvidenceMode, call: Call, native: Native) -> Found:
    """Branches that are added or subtracted; what does not depend on the image gets nothing."""
    kept = call.kept()
    signs: tuple[float, ...] = _TERMS[call.name]
    alpha = float(call.get("alpha", 1))
    signs = (signs[0] * alpha, signs[1]) if call.name == "rsub" else (signs[0], signs[1] * alpha)
    terms = zip(_two(call), _two(kept), signs, strict=True)
    moving = [(term, seen, sign) for term, seen, sign in terms if mode.depends(term)]
    if len(moving) == 1 and moving[0][2] > 0:
        return NotImplemented if alpha == 1 else _alone(mode, call, native, moving[0][0])
    operands, seen, signs = zip(*moving, strict=True)
    return winners.over_branches(_value(call, native), operands, seen, signs, mode.lost)


def _alone(mode: EvidenceMode, call: Call, native: Native, operand: Tensor) -> Tensor:
    one = torch.ones((), dtype=operand.dtype, device=operand.device)
    return winners.over_factor(_value(call, native), operand, one, mode.lost)


def _two(call: Call) -> tuple[Any, Any]:
    """Both terms, however they were given."""
    listed = list(call.get("operands", ()))
    named = [call.arguments[key] for key in ("input", "other") if key in call.arguments]
    first, second, *_ = [*listed, *named]
    return first, second


def _resampled(mode: EvidenceMode, call: Call, native: Native) -> Found:
    if mode.depends(*tensors_in(call.get("others", ()))) or not mode.depends(call.input):
        return f"{call.name} with a second operand that depends on the image"
    return _summed(mode, call, native, call.input)


def _summed(mode: EvidenceMode, call: Call, native: Native, operand: Tensor) -> Found:
    if not mode.depends(operand):
        return call.name
    kept = call.kept()
    try:
        linear = linear_map(kept)
    except RuleError:
        return call.name
    if linear is None:
        return NotImplemented
    return winners.over_sums(_value(call, native), operand, signal_of(kept), linear, mode.lost)


def _dropout(mode: EvidenceMode, call: Call, native: Native) -> Found:  # noqa: ARG001
    active = call.get("training", True) and call.get("p", 0.5) > 0
    return f"{call.name} in training mode" if active else NotImplemented


def _as_it_is(mode: EvidenceMode, call: Call, native: Native) -> Found:  # noqa: ARG001
    """A maximum gives all to its winner and a selection to what it selects, as in autograd."""
    return NotImplemented


def _unknown(mode: EvidenceMode, call: Call, native: Native) -> Found:  # noqa: ARG001
    return call.name


def _map_of(call: Call, key: str | int) -> LinearMap | None:
    try:
        return linear_map(call, key)
    except RuleError:
        return None


def _value(call: Call, native: Native) -> Tensor:
    """The result outside the graph; the caller's tensor is not written yet."""
    with torch.no_grad():
        if not call.inplace and call.out is None:
            value: Tensor = native()
            return value.detach()
        kept = call.kept()
        if call.name in _TERMS:
            first, second = _two(kept)
            pure = torch.add if sum(_TERMS[call.name]) == 2 else torch.sub
            return pure(first, second, alpha=call.get("alpha", 1))
        listed = kept.arguments["operands"] if call.family is OperationKind.LINEAR else None
        found: Tensor = kept.operation.pure(*listed) if listed else kept.run()
        return found


def _tensor(factor: Any, like: Tensor) -> Tensor:
    return factor if isinstance(factor, Tensor) else like.new_tensor(factor)


_TERMS = {
    **dict.fromkeys(("add", "__add__", "__radd__", "__iadd__"), (1.0, 1.0)),
    **dict.fromkeys(("sub", "subtract", "__sub__", "__isub__"), (1.0, -1.0)),
    **dict.fromkeys(("rsub", "__rsub__"), (-1.0, 1.0)),
}
_JOINING = ("cat", "concat", "concatenate", "stack", "hstack", "vstack")
_NEGATIONS = ("neg", "negative", "__neg__")
_UNTREATED = (
    *("diff", "index_add", "scatter_add", "block_diag", "fft", "ifft", "fft2", "ifft2", "fftn"),
    *("ifftn", "rfft", "irfft", "rfft2", "irfft2", "rfftn", "irfftn"),
)
_RULES: dict[OperationKind, Callable[[EvidenceMode, Call, Native], Found]] = {
    OperationKind.RECTIFIER: _passed,
    OperationKind.SQUASHING: _passed,
    OperationKind.SOFTMAX: _passed,
    OperationKind.NORM: _passed,
    OperationKind.ELEMENTWISE: _unknown,
    OperationKind.PRODUCT: _product,
    OperationKind.QUOTIENT: _quotient,
    OperationKind.BILINEAR: _bilinear,
    OperationKind.WEIGHTED: _weighted,
    OperationKind.SELECT: _selected,
    OperationKind.MAXIMUM: _as_it_is,
    OperationKind.COMPOSITE: _as_it_is,
    OperationKind.DROPOUT: _dropout,
    OperationKind.LINEAR: _linear,
    OperationKind.LINEAR_IN_FIRST: _resampled,
}
