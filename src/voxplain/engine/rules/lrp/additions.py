"""Relevance through sums, differences and concatenations, whatever way they were written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from voxplain.engine.rules.calls import Call
from voxplain.engine.rules.lrp import linear as lrp_linear
from voxplain.engine.rules.lrp.mode import LrpPropagation

Native = Callable[[], Any]
JOINING = ("cat", "concat", "concatenate", "stack")

_SIGNS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("add", "__add__", "__radd__", "__iadd__"), (1.0, 1.0)),
    **dict.fromkeys(("sub", "subtract", "__sub__", "__isub__"), (1.0, -1.0)),
    **dict.fromkeys(("rsub", "__rsub__"), (-1.0, 1.0)),
}
_NEGATIVE = ("neg", "negative", "__neg__")


def addition(call: Call) -> list[tuple[Any, float]] | None:
    """The operands with their factors, or None for a call that adds no operands.

    Args:
        call: Of the linear family.
    """
    given = [*call.get("operands", ()), *_named(call)]
    if call.name in _NEGATIVE:
        return [(given[0], -1.0)]
    if call.name not in _SIGNS:
        return None
    first, second = _SIGNS[call.name]
    alpha = call.get("alpha", 1)
    reversed_ = call.name in ("rsub", "__rsub__")
    factors = (first * alpha, second) if reversed_ else (first, second * alpha)
    return list(zip(given[:2], factors, strict=True))


def added(mode: LrpPropagation, call: Call, native: Native, parts: list[tuple[Any, float]]) -> Any:
    """A sum or difference; in-place sums keep a copy of what they overwrite.

    Args:
        mode: Knows what depends on the image.
        call: The sum.
        native: Runs it as it was called.
        parts: From :func:`addition`.
    """
    first = next(part for part, _ in parts if isinstance(part, Tensor) and mode.depends(part))
    settled = [(_tensor(part, first), factor) for part, factor in parts]
    moving = [mode.depends(part) for part, _ in settled]
    writes = call.inplace or call.out is not None
    with torch.no_grad():
        value = _sum(settled) if writes else native()
    result = lrp_linear.added(
        settled, moving, value, mode.epsilon, mode.balance, overwritten=writes
    )
    if call.out is not None:
        return call.out.copy_(result)
    return parts[0][0].copy_(result) if call.inplace else result


def _tensor(part: Any, like: Tensor) -> Tensor:
    if isinstance(part, Tensor):
        return part
    return torch.tensor(part, dtype=like.dtype, device=like.device)


def _sum(parts: list[tuple[Tensor, float]]) -> Tensor:
    scaled = [part.detach() * factor for part, factor in parts]
    return scaled[0] + scaled[1] if len(scaled) > 1 else scaled[0]


def joined(mode: LrpPropagation, call: Call, native: Native) -> Any:
    """A concatenation; its constant parts (class tokens) take relevance as biases do."""
    parts, again = _sequence(call)
    if parts is None or all(mode.depends(part) for part in parts):
        return NotImplemented
    marked = [torch.full_like(part, float(not mode.depends(part))) for part in parts]
    with torch.no_grad():
        still = again(marked)
    return lrp_linear.joined(native(), still, mode.balance)


def _sequence(call: Call) -> tuple[list[Tensor] | None, Callable[[list[Tensor]], Tensor]]:
    """The tensors of ``cat`` or ``stack``, and the same call on others."""
    given = call.get("operands", ())
    named = {
        key: part for key, part in call.arguments.items() if key not in ("operands", "tensors")
    }
    listed = call.get("tensors", given[0] if given and not isinstance(given[0], Tensor) else None)
    rest: tuple[Any, ...] = given[1:] if listed is not None and given else ()
    if listed is None:
        listed = [part for part in given if isinstance(part, Tensor)]
    pure: Any = call.operation.pure
    return list(listed) or None, lambda parts: pure(parts, *rest, **named)


def _named(call: Call) -> list[Any]:
    return [call.arguments[name] for name in ("input", "other") if name in call.arguments]
