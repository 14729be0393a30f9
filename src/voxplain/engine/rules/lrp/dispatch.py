"""LRP redistribution of each kind of call, given which of its operands depend on the image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from voxplain.engine.rules.calls import Call, OperationKind, is_affine
from voxplain.engine.rules.decompositions import decomposition
from voxplain.engine.rules.lrp import linear as lrp_linear
from voxplain.engine.rules.lrp.additions import (
    CONCATENATIONS,
    propagate_concatenation,
    propagate_sum,
    summands,
)
from voxplain.engine.rules.lrp.composites import choose_rule, layer_place
from voxplain.engine.rules.lrp.layer_rules import LayerRule
from voxplain.engine.rules.lrp.mode import LrpMode
from voxplain.engine.rules.mode import caller
from voxplain.engine.rules.redistribution import (
    LinearMap,
    linear_map,
    only_operand,
    with_redistribution,
)
from voxplain.engine.rules.substitutes import (
    with_surrogate_gradient,
    with_surrogate_gradients,
    write_result,
)
from voxplain.errors import RuleError

Native = Callable[[], Any]


def propagate(mode: LrpMode, call: Call, native: Native) -> Any:
    """The value of a call with the redistribution of its relevance as the backward.

    Args:
        mode: The mode; calls without a rule are reported to it.
        call: With at least one operand that depends on the image.
        native: Runs it as it was called.

    Returns:
        The result, or ``NotImplemented`` if torch's own derivative is the redistribution.
    """
    return _RULES[call.kind](mode, call, native)


def _native_gradient(mode: LrpMode, call: Call, native: Native) -> Any:  # noqa: ARG001
    return NotImplemented


def _pass_unchanged(mode: LrpMode, call: Call, native: Native) -> Any:  # noqa: ARG001
    """Relevance passes unchanged to the first operand."""
    others = [value for name, value in call.arguments.items() if name != "input"]
    if mode.depends(*others):
        return _unsupported(mode, f"{call.name} with a second operand that depends on the image")
    return _all_to(call, call.input)


def _all_to(call: Call, operand: Tensor) -> Any:
    """All relevance to one operand."""
    with torch.no_grad():
        value: Tensor = call.detached().run()
    return write_result(call, with_surrogate_gradient(operand.expand_as(value), value))


def _dropout(mode: LrpMode, call: Call, native: Native) -> Any:  # noqa: ARG001
    if not (call.get("training", True) and call.get("p", 0.5) > 0):
        return NotImplemented
    return _all_to(call, call.input)


def _elementwise(mode: LrpMode, call: Call, native: Native) -> Any:  # noqa: ARG001
    others = [value for name, value in call.arguments.items() if name != "input"]
    if mode.depends(*others):
        return _unsupported(mode, f"{call.name} with a second operand that depends on the image")
    if not mode.strict:
        mode.report_unknown(call.name)
        return _first_order(mode, call)
    return _raise_on_relevance(mode, call)


def _raise_on_relevance(mode: LrpMode, call: Call) -> Any:
    """An error once relevance reaches the call: what only makes weights and gates is allowed."""
    message = mode.no_rule_message(call.name)
    with torch.no_grad():
        value: Tensor = call.detached().run()

    def backward(q: Tensor) -> tuple[Tensor]:  # noqa: ARG001
        raise RuleError(message)

    return write_result(call, with_redistribution(value, [call.input], backward))


def _softmax(mode: LrpMode, call: Call, native: Native) -> Any:  # noqa: ARG001
    return _first_order(mode, call)


def _first_order(mode: LrpMode, call: Call) -> Any:
    """Relevance by the first-order Taylor part of the call."""
    detached = call.detached()
    with torch.no_grad():
        value = detached.run()

    def function(operand: Tensor) -> Tensor:
        result: Tensor = detached.with_input(operand).run()
        return result

    result = lrp_linear.by_first_order(function, call.input, value, mode.epsilon, mode.conservation)
    return write_result(call, result)


def _product(mode: LrpMode, call: Call, native: Native) -> Any:  # noqa: ARG001
    """All relevance to the operand that depends on the image, or to the signal of a gate."""
    left, right = call.arguments["input"], call.arguments["other"]
    if not mode.depends(left) or not mode.depends(right):
        return _all_to(call, left if mode.depends(left) else right)
    is_gate = [operand in mode.gates for operand in (left, right)]
    if mode.gate == "signal" and is_gate.count(True) == 1:
        return _all_to(call, right if is_gate[0] else left)
    with torch.no_grad():
        value: Tensor = call.detached().run()

    shapes = (left.shape, right.shape)

    def backward(q: Tensor) -> tuple[Tensor, ...]:
        return tuple((q / 2).sum_to_size(shape) for shape in shapes)

    return write_result(call, with_redistribution(value, [left, right], backward))


def _quotient(mode: LrpMode, call: Call, native: Native) -> Any:  # noqa: ARG001
    """All relevance to the numerator."""
    numerator = call.get("other") if call.name == "rdiv" else call.input
    if call.get("rounding_mode") is not None:
        return _unsupported(mode, f"{call.name} with rounding")
    if not mode.depends(numerator):
        return _unsupported(mode, f"{call.name} of a constant by values of the image")
    return _all_to(call, numerator)


def _bilinear(mode: LrpMode, call: Call, native: Native) -> Any:
    """Matrix products: half to each operand, or all to one if the other is a gate or fixed."""
    operands: dict[str | int, Any] = dict(enumerate(call.get("operands", ())))
    if call.name != "einsum":
        operands = {name: call.arguments[name] for name in call.operation.parameters[:2]}
    dependent = [key for key, operand in operands.items() if mode.depends(operand)]
    gates = [key for key in dependent if operands[key] in mode.gates]
    if len(dependent) == 2 and len(gates) == 1:
        dependent.remove(gates[0])
    if len(dependent) > 2 or len(operands) > 2:
        return _unsupported(mode, f"{call.name} of three operands")
    maps = [layer_map for key in dependent if (layer_map := linear_map(call, key)) is not None]
    receivers = [operands[key] for key in dependent]
    with torch.no_grad():
        value = native()
    if len(receivers) == 2:
        return lrp_linear.split_equally(maps, receivers, value, mode.epsilon, mode.conservation)
    fixed = [operand for key, operand in operands.items() if key not in dependent]
    if fixed and mode.from_parameters(fixed[0]):
        return _by_composite(mode, call, maps[0], receivers[0], value)
    return lrp_linear.by_epsilon(maps[0], receivers[0], value, mode.epsilon, mode.conservation)


def _weighted(mode: LrpMode, call: Call, native: Native) -> Any:
    if mode.depends(call.get("bias")):
        return _unsupported(mode, f"{call.name} with a bias that depends on the image")
    if mode.depends(call.arguments["weight"]):
        return _unsupported(mode, f"{call.name} with a weight that depends on the image")
    layer_map = linear_map(call)
    assert layer_map is not None
    with torch.no_grad():
        value = native()
    return _by_composite(mode, call, layer_map, call.input, value)


def _by_composite(
    mode: LrpMode, call: Call, layer_map: LinearMap, operand: Tensor, value: Tensor
) -> Tensor:
    """A weighted call under the layer rule that the composite chooses for it."""
    intensities = mode.intensities.of(operand)
    rule = _deferred_rule(mode, call, intensities is not None)
    mode.weighted_calls += 1
    mode.calls_on_image += intensities is not None
    if not any(choice.rule == "box" for choice in mode.composite):
        intensities = None
    return lrp_linear.by_layer_rule(layer_map, operand, value, rule, mode.conservation, intensities)


def _deferred_rule(mode: LrpMode, call: Call, first: bool) -> Callable[[], LayerRule | None]:
    """Returns the layer rule of a call once the number of weighted calls is known."""
    place = layer_place(call, mode.weighted_calls, first)
    return lambda: choose_rule(mode.composite, place, mode.weighted_calls, mode.epsilon)


def _norm(mode: LrpMode, call: Call, native: Native) -> Any:
    if call.name == "var" or mode.depends(call.get("weight"), call.get("bias")):
        return _unsupported(mode, f"{call.name} of values that depend on the image")
    rule = _deferred_rule(mode, call, False)
    with torch.no_grad():
        value = native()
    if is_affine(call) and (layer_map := linear_map(call)) is not None:
        return lrp_linear.by_layer_rule(layer_map, call.input, value, rule, mode.conservation)
    return lrp_linear.through_norm(call, value, rule, mode.conservation)


def _linear(mode: LrpMode, call: Call, native: Native) -> Any:
    if (terms := summands(call)) is not None:
        return propagate_sum(mode, call, native, terms)
    if call.name in CONCATENATIONS:
        return propagate_concatenation(mode, call, native)
    return _fixed_weights(mode, call, native)


def _fixed_weights(mode: LrpMode, call: Call, native: Native) -> Any:
    """Sums, means and resampling by epsilon; rearrangements by torch's own derivative."""
    if mode.depends(call.get("others", ())):
        return _unsupported(mode, f"{call.name} with a second operand that depends on the image")
    try:
        layer_map = linear_map(call)
    except RuleError:
        return _unsupported(mode, call.name)
    if layer_map is None:
        return NotImplemented
    with torch.no_grad():
        value = native()
    return lrp_linear.by_epsilon(
        layer_map, only_operand(call), value, mode.epsilon, mode.conservation
    )


def _composite(mode: LrpMode, call: Call, native: Native) -> Any:
    """Composite functions: relevance through their decomposition, value as torch computes it."""
    if call.name in ("maximum", "minimum"):
        return _winner_takes_all(call)
    if call.name in _FROZEN_DIVISORS:
        return _all_to(call, call.input)
    decomposed = decomposition(call)
    assert decomposed is not None
    with mode:
        surrogate = decomposed()
    if surrogate is NotImplemented:
        return _unsupported(mode, call.name)
    if call.inplace or call.out is not None:
        return write_result(call, surrogate)
    with torch.no_grad():
        value = native()
    return with_surrogate_gradients(surrogate, value)


def _winner_takes_all(call: Call) -> Any:
    """All relevance to the winner of two operands; to the first one if they are equal."""
    left, right = call.arguments["input"], call.arguments["other"]
    with torch.no_grad():
        value: Tensor = call.detached().run()
    wins = left >= right if call.name == "maximum" else left <= right
    return write_result(call, with_surrogate_gradient(torch.where(wins, left, right), value))


def _recurrent(mode: LrpMode, call: Call, native: Native) -> Any:  # noqa: ARG001
    raise RuleError(
        f"{call.name} in {caller()} hides its gates, so LRP cannot treat it; use another method"
    )


def _unsupported(mode: LrpMode, description: str) -> Any:
    mode.report_unknown(description)
    return NotImplemented


_FROZEN_DIVISORS = ("normalize", "local_response_norm")
_RULES: dict[OperationKind, Callable[[LrpMode, Call, Native], Any]] = {
    OperationKind.RECTIFIER: _pass_unchanged,
    OperationKind.SQUASHING: _pass_unchanged,
    OperationKind.ELEMENTWISE: _elementwise,
    OperationKind.PRODUCT: _product,
    OperationKind.QUOTIENT: _quotient,
    OperationKind.BILINEAR: _bilinear,
    OperationKind.WEIGHTED: _weighted,
    OperationKind.SELECT: _native_gradient,
    OperationKind.ATTENTION: _composite,
    OperationKind.SOFTMAX: _softmax,
    OperationKind.NORM: _norm,
    OperationKind.MAXIMUM: _native_gradient,
    OperationKind.COMPOSITE: _composite,
    OperationKind.DROPOUT: _dropout,
    OperationKind.LINEAR: _linear,
    OperationKind.LINEAR_IN_FIRST: _fixed_weights,
    OperationKind.RECURRENT: _recurrent,
}
