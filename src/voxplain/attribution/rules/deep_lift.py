"""DeepLIFT (Rescale) through the whole graph: image and reference run, aligned call by call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from voxplain.attribution.rules import maxima, multipliers, norms, softmaxes
from voxplain.attribution.rules.alignment import Alignment, Recording, is_recorded, mask_of
from voxplain.attribution.rules.base import Rule, RuleMode, caller
from voxplain.attribution.rules.calls import Call, Family
from voxplain.attribution.rules.composites import decomposition
from voxplain.attribution.rules.rectifiers import OnUnknown, written
from voxplain.attribution.rules.substitutes import grafted
from voxplain.attribution.rules.tensors import is_floating
from voxplain.errors import RuleError


@dataclass(frozen=True)
class DeepLift(Rule):
    """Multipliers m with sum((x - b) * m) = S(x) - S(b), exact for any composition.

    Shrikumar et al., Learning important features through propagating activation differences,
    2017 (the Rescale rule), with exact rules for products, softmax, maxima and normalization.

    Attributes:
        eps: Difference below which the derivative replaces the difference quotient, relative to
            max(1, abs x); None for 1e-6 in float32 and 1e-10 in float64.
        softmax: ``exact``, or ``compatible`` with Captum's centered rule (not complete).
        on_unknown: What to do about a function without a rule.
    """

    name: ClassVar[str] = "deep_lift"
    paired: ClassVar[bool] = True
    eps: float | None = None
    softmax: Literal["exact", "compatible"] = "exact"
    on_unknown: OnUnknown = "error"

    def record(self) -> Recording:
        """A context for the reference forward, gradients disabled."""
        return Recording()

    def replay(self, recording: RuleMode) -> RuleMode:
        """A context for the image forward, gradients enabled; repeats as often as needed."""
        if not isinstance(recording, Recording):
            raise RuleError("the rule 'deep_lift' replays what its own record() returned")
        return _Replay(self, recording)


class _Replay(RuleMode):
    """Puts multipliers in the graph for every call that is not linear in the image."""

    def __init__(self, rule: DeepLift, recording: Recording) -> None:
        super().__init__()
        self.rule = rule
        self._alignment = Alignment(recording)

    def treat(self, call: Call, native: Callable[[], Any]) -> Any:
        """The value of the call with its multipliers as the backward."""
        if not is_recorded(call, self):
            self._check_untreated(call)
            return native()
        steps = decomposition(call)
        if steps is not None:
            return self._composite(call, steps, native)
        reference = self._alignment.partner(call)
        if not self.depends(*call.operands()):
            return native()
        result = _RULES[call.family](self, call, reference)
        if result is NotImplemented:
            return native()
        self.treated[call.name] += 1
        return written(call, result)

    def unknown(self, what: str) -> None:
        """Refuses, or remarks on, a function that would get the plain gradient."""
        if self.rule.on_unknown == "error":
            raise RuleError(
                f"DeepLIFT has no rule for {what}, called in {caller()}; "
                "on_unknown: warn gives it the plain gradient, at the price of completeness"
            )
        remark = f"DeepLIFT has no rule for {what}; it got the plain gradient"
        if remark not in self.warnings:
            self.warnings.append(remark)

    def finish(self) -> None:
        """Makes sure that both runs made the same calls."""
        self._alignment.finish()

    def _composite(self, call: Call, steps: Callable[[], Any], native: Callable[[], Any]) -> Any:
        with self:
            stand_in = steps()
        if not self.depends(*call.operands()):
            return native()
        if stand_in is NotImplemented:
            self.unknown(call.name)
            return native()
        if call.inplace or call.out is not None:
            return written(call, stand_in)
        with torch.no_grad():
            value = native()
        return _graft_all(stand_in, value)

    def _check_untreated(self, call: Call) -> None:
        if not self.depends(*call.operands()):
            return
        if call.family is Family.RECURRENT:
            raise RuleError(
                f"{call.name} in {caller()} hides its gates, so DeepLIFT cannot treat it; "
                "use the rule 'plain'"
            )
        if call.family is Family.DROPOUT and call.get("training", True) and call.get("p", 0.5) > 0:
            self.unknown(f"{call.name} in training mode")
        if call.family is Family.LINEAR_IN_FIRST and self.depends(call.get("others", ())):
            self.unknown(f"{call.name} with a second operand that depends on the image")
        picks = (t for t in call.operands() if not is_floating(t))
        if call.family is Family.LINEAR and any(self.decided_by_data(index) for index in picks):
            self.unknown(f"{call.name} with an index taken from the image")


def _graft_all(stand_in: Any, value: Any) -> Any:
    """Grafts a tensor, or each tensor of a tuple (attention output and weights)."""
    if isinstance(value, Tensor):
        return grafted(stand_in, value) if stand_in.requires_grad else value
    if isinstance(value, tuple):
        pairs = zip(stand_in, value, strict=True)
        return tuple(_graft_all(part, whole) for part, whole in pairs)
    return value


def _elementwise(mode: _Replay, call: Call, reference: Call) -> Any:
    others = [tensor for key, tensor in call.arguments.items() if key != "input"]
    if mode.depends(*others) or call.input.is_complex():
        return _refused(mode, f"{call.name} with a second operand that depends on the image")
    return multipliers.elementwise(call, reference, mode.rule.eps)


def _product(mode: _Replay, call: Call, reference: Call) -> Any:
    left, right = _pairs(call, reference, "input", "other")
    if mode.depends(left[0]) and mode.depends(right[0]):
        return multipliers.bilinear(torch.mul, left, right, _value(call))
    signal, factor = (left, right) if mode.depends(left[0]) else (right, left)
    return _gated(mode, call, signal, factor)


def _quotient(mode: _Replay, call: Call, reference: Call) -> Any:
    if call.get("rounding_mode") is not None:
        return _refused(mode, f"{call.name} with rounding")
    above, below = _pairs(call, reference, "input", "other")
    if call.name == "rdiv":
        above, below = below, above
    if mode.depends(below[0]):
        return multipliers.quotient(above, below, _value(call))
    return _gated(mode, call, above, (1 / below[0], 1 / below[1]))


def _gated(
    mode: _Replay, call: Call, signal: tuple[Any, Any], factor: tuple[Tensor, Tensor]
) -> Any:
    """A factor without a gradient: linear if it is the same in both runs."""
    if _same(*factor):
        return NotImplemented
    value = _value(call)
    return _selected(
        mode, call, multipliers.selection(factor, signal, (0, 0), value, mode.rule.eps)
    )


def _select(mode: _Replay, call: Call, reference: Call) -> Any:
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
    masks, eps = (mask, mask_b), mode.rule.eps
    found = multipliers.selection(masks, chosen_pair, other_pair, value, eps)
    return _selected(mode, call, found)


def _selected(mode: _Replay, call: Call, found: tuple[Tensor, float]) -> Any:
    """Refuses a selection whose change cannot be credited to what it selects from."""
    result, left_over = found
    scale = max(float(result.detach().abs().max()), 1e-30)
    if not left_over <= 1e-4 * scale:
        return _refused(mode, f"{call.name} with a mask that depends on other values of the image")
    return result


def _bilinear(mode: _Replay, call: Call, reference: Call) -> Any:
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


def _einsum(mode: _Replay, call: Call, reference: Call) -> Any:
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


def _weighted(mode: _Replay, call: Call, reference: Call) -> Any:
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
    mode: _Replay,
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


def _softmax(mode: _Replay, call: Call, reference: Call) -> Any:
    if call.name == "logsumexp":
        return softmaxes.log_sum_exp(call, reference)
    if call.name == "log_softmax":
        return softmaxes.log_softmax(call, reference)
    if mode.rule.softmax == "compatible":
        return softmaxes.compatible_softmax(call, reference, mode.rule.eps)
    return softmaxes.exact_softmax(call, reference)


def _norm(mode: _Replay, call: Call, reference: Call) -> Any:
    if mode.depends(call.get("weight"), call.get("bias")):
        return _refused(mode, f"{call.name} with weights that depend on the image")
    rule = norms.variance if call.name == "var" else norms.normalization
    return rule(call, reference)


def _maximum(mode: _Replay, call: Call, reference: Call) -> Any:  # noqa: ARG001
    return maxima.cross_maximum(call, reference)


def _refused(mode: _Replay, what: str) -> Any:
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


_RULES: dict[Family, Callable[[_Replay, Call, Call], Any]] = {
    Family.RECTIFIER: _elementwise,
    Family.SQUASHING: _elementwise,
    Family.ELEMENTWISE: _elementwise,
    Family.PRODUCT: _product,
    Family.QUOTIENT: _quotient,
    Family.BILINEAR: _bilinear,
    Family.WEIGHTED: _weighted,
    Family.SELECT: _select,
    Family.SOFTMAX: _softmax,
    Family.NORM: _norm,
    Family.MAXIMUM: _maximum,
}
