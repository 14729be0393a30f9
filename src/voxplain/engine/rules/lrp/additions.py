"""LRP of sums, differences and concatenations of operands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from voxplain.engine.rules.calls import Call
from voxplain.engine.rules.lrp import linear as lrp_linear
from voxplain.engine.rules.lrp.mode import LrpMode

Native = Callable[[], Any]
CONCATENATIONS = ("cat", "concat", "concatenate", "stack")

_SIGNS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("add", "__add__", "__radd__", "__iadd__"), (1.0, 1.0)),
    **dict.fromkeys(("sub", "subtract", "__sub__", "__isub__"), (1.0, -1.0)),
    **dict.fromkeys(("rsub", "__rsub__"), (-1.0, 1.0)),
}
_NEGATIONS = ("neg", "negative", "__neg__")


def summands(call: Call) -> list[tuple[Any, float]] | None:
    """The operands of a sum with their factors; None for a call that adds no operands.

    Args:
        call: A linear call.
    """
    operands = [*call.get("operands", ()), *_named_operands(call)]
    if call.name in _NEGATIONS:
        return [(operands[0], -1.0)]
    if call.name not in _SIGNS:
        return None
    first, second = _SIGNS[call.name]
    alpha = call.get("alpha", 1)
    is_reversed = call.name in ("rsub", "__rsub__")
    factors = (first * alpha, second) if is_reversed else (first, second * alpha)
    return list(zip(operands[:2], factors, strict=True))


def propagate_sum(mode: LrpMode, call: Call, native: Native, terms: list[tuple[Any, float]]) -> Any:
    """A sum or difference; for in-place sums the overwritten operand is copied.

    Args:
        mode: The mode.
        call: The sum.
        native: Runs it as it was called.
        terms: From :func:`summands`.
    """
    like = next(term for term, _ in terms if isinstance(term, Tensor) and mode.depends(term))
    tensors = [(_as_tensor(term, like), factor) for term, factor in terms]
    dependent = [mode.depends(term) for term, _ in tensors]
    writes = call.inplace or call.out is not None
    with torch.no_grad():
        value = _weighted_sum(tensors) if writes else native()
    result = lrp_linear.through_sum(
        tensors, dependent, value, mode.epsilon, mode.conservation, overwritten=writes
    )
    if call.out is not None:
        return call.out.copy_(result)
    return terms[0][0].copy_(result) if call.inplace else result


def _as_tensor(term: Any, like: Tensor) -> Tensor:
    if isinstance(term, Tensor):
        return term
    return torch.tensor(term, dtype=like.dtype, device=like.device)


def _weighted_sum(terms: list[tuple[Tensor, float]]) -> Tensor:
    scaled = [term.detach() * factor for term, factor in terms]
    return scaled[0] + scaled[1] if len(scaled) > 1 else scaled[0]


def propagate_concatenation(mode: LrpMode, call: Call, native: Native) -> Any:
    """A concatenation; its constants (class tokens) absorb relevance as biases do."""
    tensors, concatenate = _sequence(call)
    if tensors is None or all(mode.depends(tensor) for tensor in tensors):
        return NotImplemented
    flags = [torch.full_like(tensor, float(not mode.depends(tensor))) for tensor in tensors]
    with torch.no_grad():
        is_constant = concatenate(flags)
    return lrp_linear.through_concatenation(native(), is_constant, mode.conservation)


def _sequence(call: Call) -> tuple[list[Tensor] | None, Callable[[list[Tensor]], Tensor]]:
    """The tensors of ``cat`` or ``stack``, and a function that concatenates others alike."""
    positional = call.get("operands", ())
    keywords = {
        name: value for name, value in call.arguments.items() if name not in ("operands", "tensors")
    }
    is_list = positional and not isinstance(positional[0], Tensor)
    tensors = call.get("tensors", positional[0] if is_list else None)
    rest: tuple[Any, ...] = positional[1:] if tensors is not None and positional else ()
    if tensors is None:
        tensors = [operand for operand in positional if isinstance(operand, Tensor)]
    pure: Any = call.operation.pure
    return list(tensors) or None, lambda others: pure(others, *rest, **keywords)


def _named_operands(call: Call) -> list[Any]:
    return [call.arguments[name] for name in ("input", "other") if name in call.arguments]
