"""Which DeepLIFT rule a call gets, given which of its operands depend on the image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from voxplain.engine.rules import norms
from voxplain.engine.rules.calls import Call, OperationKind
from voxplain.engine.rules.deep_lift import maxima, multipliers, softmaxes
from voxplain.engine.rules.deep_lift.alignment import mask_of
from voxplain.engine.rules.mode import RuleMode


class Replaying(RuleMode):
    """The settings that rules read while the image run is replayed.

    Attributes:
        eps: See ``DeepLift``.
        softmax: See ``DeepLift``.
    """

    eps: float | None = None
    softmax: Literal["exact", "compatible"] = "exact"


def treated(mode: Replaying, call: Call, reference: Call) -> Any:
    """The value of a call with its multipliers as the backward.

    Args:
        mode: Knows what depends on the image; its ``unknown`` is told what has no rule.
        call: Of the image run.
        reference: The same call of the reference run.

    Returns:
        The result, or ``NotImplemented`` where torch's own derivative is right.
    """
    return _RULES[call.family](mode, call, reference)


def _elementwise(mode: Replaying, call: Call, reference: Call) -> Any:
    others = [tensor for key, tensor in call.arguments.items() if key != "input"]
    if mode.depends(*others) or call.input.is_complex():
        return _refused(mode, f"{call.name} with a second operand that depends on the image")
    return multipliers.elementwise(call, reference, mode.eps)


def _product(mode: Replaying, call: Call, reference: Call) -> Any:
    left, right = _pairs(call, reference, "input", "other")
    if mode.depends(left[0]) and mode.depends(right[0]):
        return multipliers.bilinear(torch.mul, left, right, _value(call))
    signal, factor = (left, right) if mode.depends(left[0]) else (right, left)
    return _gated(mode, call, signal, factor)


def _quotient(mode: Replaying, call: Call, reference: Call) -> Any:
    if call.get("rounding_mode") is not None:
        return _refused(mode, f"{call.name} with rounding")
    above, below = _pairs(call, reference, "input", "other")
    if call.name == "rdiv":
        above, below = below, above
    if mode.depends(below[0]):
        return multipliers.quotient(above, below, _value(call))
    return _gated(mode, call, above, (1 / below[0], 1 / below[1]))


def _gated(
    mode: Replaying, call: Call, signal: tuple[Any, Any], factor: tuple[Tensor, Tensor]
) -> Any:
    """A factor without a gradient: linear if it is the same in both runs."""
    if _same(*factor):
        return NotImplemented
    value = _value(call)
    return _selected(mode, call, multipliers.selection(factor, signal, (0, 0), value, mode.eps))


def _select(mode: Replaying, call: Call, reference: Call) -> Any:
    mask, mask_b = mask_of(call), mask_of(reference)
    assert mask is not None
    assert mask_b is not None
    if _same(mask, mask_b):
        return NotImplemented
    chosen, other = ("input", "other") if call.name == "where" else ("value", "input")
    chosen_pair, other_pair = _pairs(call, reference, chosen, other)
    value = _value(call)
    if call.name == "__setitem__":
        inserted = call.arguments["value"]
        if isinstance(inserted, Tensor) and inserted.numel() != 1:
            return _refused(mode, "an assignment of several values at voxels taken from the image")
        missing = [1] * (value.dim() - mask.dim())
        mask, mask_b = (m.reshape(*m.shape, *missing) for m in (mask, mask_b))
    masks, eps = (mask, mask_b), mode.eps
    found = multipliers.selection(masks, chosen_pair, other_pair, value, eps)
    return _selected(mode, call, found)


def _selected(mode: Replaying, call: Call, found: tuple[Tensor, float]) -> Any:
    """Refuses a selection whose change cannot be credited to what it selects from."""
    result, left_over = found
    scale = max(float(result.detach().abs().max()), 1e-30)
    if not left_over <= 1e-4 * scale:
        return _refused(mode, f"{call.name} with a mask that depends on other values of the image")
    return result


def _bilinear(mode: Replaying, call: Call, reference: Call) -> Any:
    if call.name == "einsum":
        return _einsum(mode, call, reference)
    first, second = call.operation.parameters[:2]
    rest = {key: part for key, part in call.arguments.items() if key not in (first, second)}
    left, right = _pairs(call, reference, first, second)
    if mode.depends(rest):
        return _refused(mode, f"{call.name} with three operands that depend on the image")

    def function(one: Tensor, two: Tensor) -> Tensor:
        result: Tensor = call.operation.pure(**{first: one, second: two}, **rest)
        return result

    return _two_sided(mode, call, function, left, right)


def _einsum(mode: Replaying, call: Call, reference: Call) -> Any:
    operands, operands_b = call.arguments["operands"], reference.arguments["operands"]
    moving = [i for i, operand in enumerate(operands) if mode.depends(operand)]
    still = [i for i in range(len(operands)) if i not in moving]
    if len(moving) > 2 or not all(_same(operands[i], operands_b[i]) for i in still):
        return _refused(mode, "einsum with three or more operands that change with the image")
    if len(moving) < 2:
        return NotImplemented
    first, second = moving

    def function(one: Tensor, two: Tensor) -> Tensor:
        parts = list(operands)
        parts[first], parts[second] = one, two
        return torch.einsum(call.arguments["equation"], *parts)

    left, right = ((operands[i], operands_b[i]) for i in moving)
    return _two_sided(mode, call, function, left, right)


def _weighted(mode: Replaying, call: Call, reference: Call) -> Any:
    """A convolution or linear map whose weight may itself come from the image."""
    left, right = _pairs(call, reference, "input", "weight")
    rest = {k: part for k, part in call.arguments.items() if k not in ("input", "weight", "bias")}
    if mode.depends(call.get("bias")):
        return _refused(mode, f"{call.name} with a bias that depends on the image")

    def function(one: Tensor, two: Tensor) -> Tensor:
        result: Tensor = call.operation.pure(input=one, weight=two, bias=None, **rest)
        return result

    return _two_sided(mode, call, function, left, right)


def _two_sided(
    mode: Replaying,
    call: Call,
    function: Callable[[Any, Any], Tensor],
    left: tuple[Tensor, Tensor],
    right: tuple[Tensor, Tensor],
) -> Any:
    """The product rule if both operands move; nothing to do if one is the same in both runs."""
    for pair in (left, right):
        if not mode.depends(pair[0]):
            if _same(*pair):
                return NotImplemented
            return _refused(mode, f"{call.name} with an operand computed outside of the graph")
    return multipliers.bilinear(function, left, right, _value(call))


def _softmax(mode: Replaying, call: Call, reference: Call) -> Any:
    if call.name == "logsumexp":
        return softmaxes.log_sum_exp(call, reference)
    if call.name == "log_softmax":
        return softmaxes.log_softmax(call, reference)
    if mode.softmax == "compatible":
        return softmaxes.compatible_softmax(call, reference, mode.eps)
    return softmaxes.exact_softmax(call, reference)


def _norm(mode: Replaying, call: Call, reference: Call) -> Any:
    if mode.depends(call.get("weight"), call.get("bias")):
        return _refused(mode, f"{call.name} with weights that depend on the image")
    rule = norms.variance if call.name == "var" else norms.normalization
    return rule(call, reference)


def _maximum(mode: Replaying, call: Call, reference: Call) -> Any:  # noqa: ARG001
    return maxima.cross_maximum(call, reference)


def _refused(mode: Replaying, what: str) -> Any:
    mode.unknown(what)
    return NotImplemented


def _pairs(call: Call, reference: Call, *names: str) -> tuple[tuple[Any, Any], ...]:
    return tuple((call.arguments[name], reference.arguments[name]) for name in names)


def _value(call: Call) -> Tensor:
    with torch.no_grad():
        value: Tensor = call.detached().run()
    return value


def _same(here: Tensor, there: Tensor) -> bool:
    if here.data_ptr() == there.data_ptr() and here.shape == there.shape:
        return True
    return torch.equal(here, there)


_RULES: dict[OperationKind, Callable[[Replaying, Call, Call], Any]] = {
    OperationKind.RECTIFIER: _elementwise,
    OperationKind.SQUASHING: _elementwise,
    OperationKind.ELEMENTWISE: _elementwise,
    OperationKind.PRODUCT: _product,
    OperationKind.QUOTIENT: _quotient,
    OperationKind.BILINEAR: _bilinear,
    OperationKind.WEIGHTED: _weighted,
    OperationKind.SELECT: _select,
    OperationKind.SOFTMAX: _softmax,
    OperationKind.NORM: _norm,
    OperationKind.MAXIMUM: _maximum,
}
