"""How relevance passes each family of functions, given which operands depend on the image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from voxplain.engine.rules.calls import Call, OperationKind, is_affine
from voxplain.engine.rules.decompositions import decomposition
from voxplain.engine.rules.lrp import linear as lrp_linear
from voxplain.engine.rules.lrp.additions import JOINING, added, addition, joined
from voxplain.engine.rules.lrp.composites import chosen, place_of
from voxplain.engine.rules.lrp.layer_rules import LayerRule
from voxplain.engine.rules.lrp.mode import LrpPropagation
from voxplain.engine.rules.mode import caller
from voxplain.engine.rules.redistribution import LinearMap, linear_map, redistributed, signal_of
from voxplain.engine.rules.substitutes import grafted, grafted_all, written
from voxplain.errors import RuleError

Native = Callable[[], Any]


def propagate(mode: LrpPropagation, call: Call, native: Native) -> Any:
    """The value of a call with the redistribution of relevance as its backward.

    Args:
        mode: Knows what depends on the image; its ``unknown`` is told what has no rule.
        call: With named arguments; at least one operand depends on the image.
        native: Runs it as it was called.

    Returns:
        The result, or ``NotImplemented`` where torch's own derivative is the redistribution.
    """
    return _RULES[call.family](mode, call, native)


def _native(mode: LrpPropagation, call: Call, native: Native) -> Any:  # noqa: ARG001
    return NotImplemented


def _passed(mode: LrpPropagation, call: Call, native: Native) -> Any:  # noqa: ARG001
    """Relevance goes on unchanged to the one operand that counts."""
    others = [part for key, part in call.arguments.items() if key != "input"]
    if mode.depends(*others):
        return _refused(mode, f"{call.name} with a second operand that depends on the image")
    return _handed(call, call.input)


def _handed(call: Call, operand: Tensor) -> Any:
    with torch.no_grad():
        value: Tensor = call.detached().run()
    return written(call, grafted(operand.expand_as(value), value))


def _dropout(mode: LrpPropagation, call: Call, native: Native) -> Any:  # noqa: ARG001
    if not (call.get("training", True) and call.get("p", 0.5) > 0):
        return NotImplemented
    return _handed(call, call.input)


def _elementwise(mode: LrpPropagation, call: Call, native: Native) -> Any:  # noqa: ARG001
    others = [part for key, part in call.arguments.items() if key != "input"]
    if mode.depends(*others):
        return _refused(mode, f"{call.name} with a second operand that depends on the image")
    return _without_rule(mode, call)


def _without_rule(mode: LrpPropagation, call: Call) -> Any:
    """An error as soon as relevance arrives: what makes weights and gates may be anything."""
    if not mode.strict:
        mode.unknown(call.name)
        return _first_order(mode, call)
    message = mode.refusal(call.name)
    with torch.no_grad():
        value: Tensor = call.detached().run()

    def backward(q: Tensor) -> tuple[Tensor]:  # noqa: ARG001
        raise RuleError(message)

    return written(call, redistributed(value, [call.input], backward))


def _softmax(mode: LrpPropagation, call: Call, native: Native) -> Any:  # noqa: ARG001
    return _first_order(mode, call)


def _first_order(mode: LrpPropagation, call: Call) -> Any:
    rest = call.detached()
    with torch.no_grad():
        value = rest.run()

    def function(operand: Tensor) -> Tensor:
        result: Tensor = rest.with_input(operand).run()
        return result

    made = lrp_linear.linearized(function, call.input, value, mode.epsilon, mode.balance)
    return written(call, made)


def _product(mode: LrpPropagation, call: Call, native: Native) -> Any:  # noqa: ARG001
    left, right = call.arguments["input"], call.arguments["other"]
    if not mode.depends(left) or not mode.depends(right):
        return _handed(call, left if mode.depends(left) else right)
    gating = [operand in mode.gates for operand in (left, right)]
    if mode.gate == "signal" and gating.count(True) == 1:
        return _handed(call, right if gating[0] else left)
    with torch.no_grad():
        value: Tensor = call.detached().run()

    shapes = (left.shape, right.shape)

    def backward(q: Tensor) -> tuple[Tensor, ...]:
        return tuple((q / 2).sum_to_size(shape) for shape in shapes)

    return written(call, redistributed(value, [left, right], backward))


def _quotient(mode: LrpPropagation, call: Call, native: Native) -> Any:  # noqa: ARG001
    above = call.get("other") if call.name == "rdiv" else call.input
    if call.get("rounding_mode") is not None:
        return _refused(mode, f"{call.name} with rounding")
    if not mode.depends(above):
        return _refused(mode, f"{call.name} of a constant by values of the image")
    return _handed(call, above)


def _bilinear(mode: LrpPropagation, call: Call, native: Native) -> Any:
    operands: dict[str | int, Any] = dict(enumerate(call.get("operands", ())))
    if call.name != "einsum":
        operands = {name: call.arguments[name] for name in call.operation.parameters[:2]}
    moving = [key for key, operand in operands.items() if mode.depends(operand)]
    frozen = [key for key in moving if operands[key] in mode.gates]
    if len(moving) == 2 and len(frozen) == 1:
        moving.remove(frozen[0])
    if len(moving) > 2 or len(operands) > 2:
        return _refused(mode, f"{call.name} of three operands")
    maps = [found for key in moving if (found := linear_map(call, key)) is not None]
    acting = [operands[key] for key in moving]
    with torch.no_grad():
        value = native()
    if len(acting) == 2:
        return lrp_linear.halved(maps, acting, value, mode.epsilon, mode.balance)
    fixed = [operand for key, operand in operands.items() if key not in moving]
    if fixed and mode.from_parameters(fixed[0]):
        return _under_composite(mode, call, maps[0], acting[0], value)
    return lrp_linear.linear(maps[0], acting[0], value, mode.epsilon, mode.balance)


def _weighted(mode: LrpPropagation, call: Call, native: Native) -> Any:
    if mode.depends(call.get("bias")):
        return _refused(mode, f"{call.name} with a bias that depends on the image")
    if mode.depends(call.arguments["weight"]):
        return _refused(mode, f"{call.name} with a weight that depends on the image")
    map = linear_map(call)
    assert map is not None
    with torch.no_grad():
        value = native()
    return _under_composite(mode, call, map, call.input, value)


def _under_composite(
    mode: LrpPropagation, call: Call, map: LinearMap, operand: Tensor, value: Tensor
) -> Tensor:
    ends = mode.range.of(operand)
    rule = _later(mode, call, ends is not None)
    mode.weighted += 1
    mode.reading += ends is not None
    kept = ends if _needs_range(mode) else None
    return lrp_linear.under_rule(map, operand, value, rule, mode.balance, kept)


def _later(mode: LrpPropagation, call: Call, first: bool) -> Callable[[], LayerRule | None]:
    """The rule of a call, to be asked for when the number of weighted calls is known."""
    place = place_of(call, mode.weighted, first)
    return lambda: chosen(mode.composite, place, mode.weighted, mode.epsilon)


def _needs_range(mode: LrpPropagation) -> bool:
    return any(choice.rule == "box" for choice in mode.composite)


def _norm(mode: LrpPropagation, call: Call, native: Native) -> Any:
    if call.name == "var" or mode.depends(call.get("weight"), call.get("bias")):
        return _refused(mode, f"{call.name} of values that depend on the image")
    rule = _later(mode, call, False)
    with torch.no_grad():
        value = native()
    if is_affine(call) and (map := linear_map(call)) is not None:
        return lrp_linear.under_rule(map, call.input, value, rule, mode.balance)
    return lrp_linear.normalized(call, value, rule, mode.balance)


def _linear(mode: LrpPropagation, call: Call, native: Native) -> Any:
    if (parts := addition(call)) is not None:
        return added(mode, call, native, parts)
    if call.name in JOINING:
        return joined(mode, call, native)
    return _structural(mode, call, native)


def _structural(mode: LrpPropagation, call: Call, native: Native) -> Any:
    """Sums, means and resampling by epsilon; what only moves values by torch's own derivative."""
    if mode.depends(call.get("others", ())):
        return _refused(mode, f"{call.name} with a second operand that depends on the image")
    try:
        map = linear_map(call)
    except RuleError:
        return _refused(mode, call.name)
    if map is None:
        return NotImplemented
    with torch.no_grad():
        value = native()
    return lrp_linear.linear(map, signal_of(call), value, mode.epsilon, mode.balance)


def _composite(mode: LrpPropagation, call: Call, native: Native) -> Any:
    """Functions of several steps: their parts under the mode, the value as torch computes it."""
    if call.name in ("maximum", "minimum"):
        return _larger(call)
    if call.name in _FROZEN_DIVISORS:
        return _handed(call, call.input)
    steps = decomposition(call)
    assert steps is not None
    with mode:
        stand_in = steps()
    if stand_in is NotImplemented:
        return _refused(mode, call.name)
    if call.inplace or call.out is not None:
        return written(call, stand_in)
    with torch.no_grad():
        value = native()
    return grafted_all(stand_in, value)


def _larger(call: Call) -> Any:
    """The winner of two takes all; the first one where they are equal."""
    left, right = call.arguments["input"], call.arguments["other"]
    with torch.no_grad():
        value: Tensor = call.detached().run()
    wins = left >= right if call.name == "maximum" else left <= right
    return written(call, grafted(torch.where(wins, left, right), value))


def _recurrent(mode: LrpPropagation, call: Call, native: Native) -> Any:  # noqa: ARG001
    raise RuleError(
        f"{call.name} in {caller()} hides its gates, so LRP cannot treat it; use another method"
    )


def _refused(mode: LrpPropagation, what: str) -> Any:
    mode.unknown(what)
    return NotImplemented


_FROZEN_DIVISORS = ("normalize", "local_response_norm")
_RULES: dict[OperationKind, Callable[[LrpPropagation, Call, Native], Any]] = {
    OperationKind.RECTIFIER: _passed,
    OperationKind.SQUASHING: _passed,
    OperationKind.ELEMENTWISE: _elementwise,
    OperationKind.PRODUCT: _product,
    OperationKind.QUOTIENT: _quotient,
    OperationKind.BILINEAR: _bilinear,
    OperationKind.WEIGHTED: _weighted,
    OperationKind.SELECT: _native,
    OperationKind.ATTENTION: _composite,
    OperationKind.SOFTMAX: _softmax,
    OperationKind.NORM: _norm,
    OperationKind.MAXIMUM: _native,
    OperationKind.COMPOSITE: _composite,
    OperationKind.DROPOUT: _dropout,
    OperationKind.LINEAR: _linear,
    OperationKind.LINEAR_IN_FIRST: _structural,
    OperationKind.RECURRENT: _recurrent,
}
