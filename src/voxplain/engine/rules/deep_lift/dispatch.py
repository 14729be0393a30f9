"""DeepLIFT rule of each kind of call, given which of its operands depend on the image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from voxplain.engine.rules import norms
from voxplain.engine.rules.calls import Call, OperationKind
from voxplain.engine.rules.deep_lift import maxima, multipliers, softmaxes
from voxplain.engine.rules.deep_lift.alignment import mask_of
from voxplain.engine.rules.deep_lift.cancellation import PartsOfTensors, reveal_cancel
from voxplain.engine.rules.mode import RuleMode


class ReplayMode(RuleMode):
    """Mode of the image run, with the settings that the rules below read.

    Attributes:
        eps: See ``DeepLiftRule``.
        softmax: See ``DeepLiftRule``.
        parts: Of the results of affine calls, under RevealCancel.
    """

    eps: float | None = None
    softmax: Literal["exact", "compatible"] = "exact"
    parts: PartsOfTensors | None = None


def apply_multipliers(mode: ReplayMode, call: Call, reference: Call) -> Any:
    """The value of a call with its multipliers as the backward.

    Args:
        mode: Of the image run; calls without a rule are reported to it.
        call: Of the image run.
        reference: The same call of the reference run.

    Returns:
        The result, or ``NotImplemented`` if torch's own derivative is the multiplier.
    """
    rule = _RULES.get(call.kind)
    return NotImplemented if rule is None else rule(mode, call, reference)


def _elementwise(mode: ReplayMode, call: Call, reference: Call) -> Any:
    others = [tensor for name, tensor in call.arguments.items() if name != "input"]
    if mode.depends(*others) or call.input.is_complex():
        return _unsupported(mode, f"{call.name} with a second operand that depends on the image")
    make_parts = None if mode.parts is None else mode.parts.of(call.input)
    if make_parts is not None and call.kind is not OperationKind.ELEMENTWISE:
        return reveal_cancel(call, reference, make_parts(), mode.eps)
    return multipliers.elementwise(call, reference, mode.eps)


def _product(mode: ReplayMode, call: Call, reference: Call) -> Any:
    left, right = _pairs(call, reference, "input", "other")
    if mode.depends(left[0]) and mode.depends(right[0]):
        return multipliers.bilinear(torch.mul, left, right, _detached_value(call))
    signal, factor = (left, right) if mode.depends(left[0]) else (right, left)
    return _with_fixed_factor(mode, call, signal, factor)


def _quotient(mode: ReplayMode, call: Call, reference: Call) -> Any:
    if call.get("rounding_mode") is not None:
        return _unsupported(mode, f"{call.name} with rounding")
    above, below = _pairs(call, reference, "input", "other")
    if call.name == "rdiv":
        above, below = below, above
    if mode.depends(below[0]):
        return multipliers.quotient(above, below, _detached_value(call))
    return _with_fixed_factor(mode, call, above, (1 / below[0], 1 / below[1]))


def _with_fixed_factor(
    mode: ReplayMode, call: Call, signal: tuple[Any, Any], factor: tuple[Tensor, Tensor]
) -> Any:
    """A product with a factor outside the graph; linear if the factor is equal in both runs."""
    if _equal(*factor):
        return NotImplemented
    value = _detached_value(call)
    return _checked_selection(
        mode, call, multipliers.selection(factor, signal, (0, 0), value, mode.eps)
    )


def _select(mode: ReplayMode, call: Call, reference: Call) -> Any:
    mask, mask_b = mask_of(call), mask_of(reference)
    assert mask is not None
    assert mask_b is not None
    if _equal(mask, mask_b):
        return NotImplemented
    chosen, other = ("input", "other") if call.name == "where" else ("value", "input")
    chosen_pair, other_pair = _pairs(call, reference, chosen, other)
    value = _detached_value(call)
    if call.name == "__setitem__":
        inserted = call.arguments["value"]
        if isinstance(inserted, Tensor) and inserted.numel() != 1:
            return _unsupported(
                mode, "an assignment of several values at voxels taken from the image"
            )
        missing = [1] * (value.dim() - mask.dim())
        mask, mask_b = (m.reshape(*m.shape, *missing) for m in (mask, mask_b))
    selected = multipliers.selection((mask, mask_b), chosen_pair, other_pair, value, mode.eps)
    return _checked_selection(mode, call, selected)


def _checked_selection(mode: ReplayMode, call: Call, selected: tuple[Tensor, float]) -> Any:
    """Reports a selection whose change is not explained by the values it selects from."""
    result, unexplained = selected
    scale = max(float(result.detach().abs().max()), 1e-30)
    if not unexplained <= 1e-4 * scale:
        return _unsupported(
            mode, f"{call.name} with a mask that depends on other values of the image"
        )
    return result


def _bilinear(mode: ReplayMode, call: Call, reference: Call) -> Any:
    if call.name == "einsum":
        return _einsum(mode, call, reference)
    first, second = call.operation.parameters[:2]
    rest = {name: value for name, value in call.arguments.items() if name not in (first, second)}
    left, right = _pairs(call, reference, first, second)
    if mode.depends(rest):
        return _unsupported(mode, f"{call.name} with three operands that depend on the image")

    def function(u: Tensor, v: Tensor) -> Tensor:
        result: Tensor = call.operation.pure(**{first: u, second: v}, **rest)
        return result

    return _product_rule(mode, call, function, left, right)


def _einsum(mode: ReplayMode, call: Call, reference: Call) -> Any:
    operands, operands_b = call.arguments["operands"], reference.arguments["operands"]
    dependent = [i for i, operand in enumerate(operands) if mode.depends(operand)]
    fixed = [i for i in range(len(operands)) if i not in dependent]
    if len(dependent) > 2 or not all(_equal(operands[i], operands_b[i]) for i in fixed):
        return _unsupported(mode, "einsum with three or more operands that change with the image")
    if len(dependent) < 2:
        return NotImplemented
    first, second = dependent

    def function(u: Tensor, v: Tensor) -> Tensor:
        factors = list(operands)
        factors[first], factors[second] = u, v
        return torch.einsum(call.arguments["equation"], *factors)

    left, right = ((operands[i], operands_b[i]) for i in dependent)
    return _product_rule(mode, call, function, left, right)


def _weighted(mode: ReplayMode, call: Call, reference: Call) -> Any:
    """A convolution or linear map whose weight may depend on the image."""
    left, right = _pairs(call, reference, "input", "weight")
    rest = {
        name: value
        for name, value in call.arguments.items()
        if name not in ("input", "weight", "bias")
    }
    if mode.depends(call.get("bias")):
        return _unsupported(mode, f"{call.name} with a bias that depends on the image")

    def function(u: Tensor, v: Tensor) -> Tensor:
        result: Tensor = call.operation.pure(input=u, weight=v, bias=None, **rest)
        return result

    return _product_rule(mode, call, function, left, right)


def _product_rule(
    mode: ReplayMode,
    call: Call,
    function: Callable[[Any, Any], Tensor],
    left: tuple[Tensor, Tensor],
    right: tuple[Tensor, Tensor],
) -> Any:
    """The product rule if both operands depend on the image; none if one is equal in both runs."""
    for pair in (left, right):
        if not mode.depends(pair[0]):
            if _equal(*pair):
                return NotImplemented
            return _unsupported(mode, f"{call.name} with an operand computed outside of the graph")
    return multipliers.bilinear(function, left, right, _detached_value(call))


def _softmax(mode: ReplayMode, call: Call, reference: Call) -> Any:
    if call.name == "logsumexp":
        return softmaxes.log_sum_exp(call, reference)
    if call.name == "log_softmax":
        return softmaxes.log_softmax(call, reference)
    if mode.softmax == "compatible":
        return softmaxes.compatible_softmax(call, reference, mode.eps)
    return softmaxes.exact_softmax(call, reference)


def _norm(mode: ReplayMode, call: Call, reference: Call) -> Any:
    if mode.depends(call.get("weight"), call.get("bias")):
        return _unsupported(mode, f"{call.name} with weights that depend on the image")
    rule = norms.variance if call.name == "var" else norms.normalization
    return rule(call, reference)


def _maximum(mode: ReplayMode, call: Call, reference: Call) -> Any:  # noqa: ARG001
    return maxima.cross_maximum(call, reference)


def _unsupported(mode: ReplayMode, description: str) -> Any:
    mode.report_unknown(description)
    return NotImplemented


def _pairs(call: Call, reference: Call, *names: str) -> tuple[tuple[Any, Any], ...]:
    return tuple((call.arguments[name], reference.arguments[name]) for name in names)


def _detached_value(call: Call) -> Tensor:
    with torch.no_grad():
        value: Tensor = call.detached().run()
    return value


def _equal(tensor: Tensor, reference: Tensor) -> bool:
    if tensor.data_ptr() == reference.data_ptr() and tensor.shape == reference.shape:
        return True
    return torch.equal(tensor, reference)


_RULES: dict[OperationKind, Callable[[ReplayMode, Call, Call], Any]] = {
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
