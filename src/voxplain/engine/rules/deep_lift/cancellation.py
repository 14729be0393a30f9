"""RevealCancel: positive and negative parts of a difference get multipliers of their own.

The difference from the baseline that enters a nonlinearity after an affine map is a sum of
contributions of both signs, which the Rescale rule sees only after they have canceled. RevealCancel
(Shrikumar et al., 2017, section 3.5.2) follows them apart. For y = f(h), with h_b at the baseline
and Delta h = Delta h+ + Delta h-,

    Delta y+ = (f(h_b + Delta h+) - f(h_b)) / 2 + (f(h) - f(h_b + Delta h-)) / 2

and likewise Delta y-, so that both parts sum to f(h) - f(h_b). The multipliers are
Delta y+ / Delta h+ and Delta y- / Delta h-. An input of the affine map hands on the one or the
other by the sign of its own contribution, weight times difference; one that does not differ from
the baseline hands on half of each.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from voxplain.engine.rules.calls import Call, OperationKind, is_affine, value_and_derivative
from voxplain.engine.rules.deep_lift.multipliers import difference_quotient, threshold
from voxplain.engine.rules.redistribution import LinearMap, linear_map
from voxplain.engine.rules.substitutes import with_surrogate_gradient
from voxplain.engine.tensors import map_tensors, version

SUMS = {
    **dict.fromkeys(("add", "__add__", "__radd__", "__iadd__"), (1.0, 1.0)),
    **dict.fromkeys(("sub", "subtract", "__sub__", "__isub__"), (1.0, -1.0)),
    **dict.fromkeys(("rsub", "__rsub__"), (-1.0, 1.0)),
}
"""Sums of two tensors, and the signs of their terms."""
_REARRANGING = (
    *("reshape", "view", "flatten", "unflatten", "permute", "transpose", "squeeze", "unsqueeze"),
    *("contiguous", "clone", "view_as", "reshape_as", "movedim", "swapaxes"),
)


@dataclass(frozen=True, eq=False)
class Parts:
    """The positive and the negative part of a tensor's difference from the baseline.

    Attributes:
        plus: A linear expression of the inputs of the affine map, in their graph: its gradient
            goes to what raises the tensor. Its value means nothing.
        minus: The same for what lowers it.
        whole: The tensor itself, of what the affine maps returned: gradients at a layer in between
            are those of Rescale, and end there.
        plus_change: Delta h+, at least 0, detached.
        minus_change: Delta h-, at most 0, detached.
    """

    plus: Tensor
    minus: Tensor
    whole: Tensor
    plus_change: Tensor
    minus_change: Tensor

    def mapped(self, function: Callable[[Tensor], Tensor]) -> Parts:
        """The parts of a linear function that keeps signs."""
        linear = (self.plus, self.minus, self.whole, self.plus_change, self.minus_change)
        return Parts(*map(function, linear))

    def __add__(self, other: Parts) -> Parts:
        """The parts of a sum."""
        return Parts(
            self.plus + other.plus,
            self.minus + other.minus,
            self.whole + other.whole,
            self.plus_change + other.plus_change,
            self.minus_change + other.minus_change,
        )

    def scaled(self, slope: Tensor) -> Parts:
        """The parts of the tensor times a slope; a negative one swaps them."""
        rises = slope >= 0
        plus = torch.where(rises, self.plus, self.minus) * slope
        minus = torch.where(rises, self.minus, self.plus) * slope
        plus_change = torch.where(rises, self.plus_change, self.minus_change) * slope
        minus_change = torch.where(rises, self.minus_change, self.plus_change) * slope
        return Parts(plus, minus, self.whole * slope, plus_change, minus_change)


@dataclass(frozen=True, eq=False)
class _Made:
    """How to make the parts of a tensor, as long as neither it nor what it is made of changes."""

    tensor: weakref.ref[Tensor]
    version: int
    operands: tuple[tuple[Tensor, int], ...]
    make: Callable[[], Parts]

    def holds_for(self, tensor: Tensor) -> bool:
        if self.tensor() is not tensor or self.version != version(tensor):
            return False
        return all(version(operand) == before for operand, before in self.operands)


class PartsOfTensors:
    """The parts of the results of affine calls, made when a nonlinearity asks for them."""

    def __init__(self) -> None:
        self._made: dict[int, _Made] = {}

    def of(self, tensor: Tensor) -> Callable[[], Parts] | None:
        """Makes the parts of a tensor; None where no affine map made it as it is now."""
        found = self._made.get(id(tensor))
        return found.make if found is not None and found.holds_for(tensor) else None

    def run(self, call: Call, reference: Call | None, native: Callable[[], Any]) -> Any:
        """Runs a call, and keeps how to make the parts of its result if it is affine.

        Args:
            call: Of the image run.
            reference: The same call of the reference run, where it was recorded.
            native: Runs the call.
        """
        if call.kind is OperationKind.WEIGHTED:
            return self._run_weighted(call, reference, native)
        make = self._maker(call, reference)
        operands: tuple[Tensor, ...] = tuple(call.operands())
        if make is not None and call.inplace:
            parts, operands = make(), ()
            make = lambda: parts  # noqa: E731
        result = native()
        if make is not None and isinstance(result, Tensor):
            self._keep(result, operands, make)
        return result

    def _run_weighted(self, call: Call, reference: Call | None, native: Callable[[], Any]) -> Any:
        """What a layer behind it sees has a place of its own in the graph."""
        whole = native()
        if reference is None or call.out is not None:
            return whole
        result = with_surrogate_gradient(whole, whole.detach())
        make = partial(_of_weights, call, reference.input, whole)
        self._keep(result, tuple(call.operands()), make)
        return result

    def _keep(
        self, result: Tensor, operands: tuple[Tensor, ...], make: Callable[[], Parts]
    ) -> None:
        versions = tuple((operand, version(operand)) for operand in operands)
        made = _Made(weakref.ref(result), version(result), versions, make)
        self._made[id(result)] = made

    def _maker(self, call: Call, reference: Call | None) -> Callable[[], Parts] | None:
        if call.name in SUMS:
            return self._of_sum(call, reference)
        operand = next(call.operands(), None)
        made = None if operand is None else self.of(operand)
        if operand is None or made is None:
            return None
        if call.kind is OperationKind.NORM and is_affine(call):
            slope = partial(value_and_derivative, call.detached())
            return lambda: made().scaled(slope(operand.detach())[1])
        if call.name in _REARRANGING:
            return lambda: made().mapped(partial(_replaced, call, operand))
        return None

    def _of_sum(self, call: Call, reference: Call | None) -> Callable[[], Parts] | None:
        """Terms with parts keep them; others count by their own sign, and constants not at all."""
        befores = _two_terms(reference) if reference is not None else (None, None)
        terms: list[Callable[[], Parts]] = []
        for term, before, factor in zip(_two_terms(call), befores, _factors(call), strict=True):
            made = self.of(term) if isinstance(term, Tensor) else None
            if made is None and before is not None:
                made = partial(_of_itself, term, before)
            if made is not None:
                terms.append(partial(_scaled, made, factor))
        if not terms:
            return None
        first, *others = terms
        return lambda: sum((other() for other in others), start=first())


def reveal_cancel(call: Call, reference: Call, parts: Parts, eps: float | None) -> Tensor:
    """The value of an elementwise function, with the multipliers of both parts as its backward.

    Args:
        call: Of the image run.
        reference: The same call of the reference run.
        parts: Of its input.
        eps: As in ``threshold``.
    """
    with torch.no_grad():
        value: Tensor = call.run()
        pure, x, x_b = call.detached(), call.input.detach(), reference.input
        up, down = x_b + parts.plus_change, x_b + parts.minus_change

        def f(point: Tensor) -> Tensor:
            result: Tensor = pure.with_input(point).run()
            return result

        raised, lowered = f(up) - f(x_b), f(down) - f(x_b)
        whole = f(x) - f(x_b)
        changes = ((whole + raised - lowered) / 2, (whole + lowered - raised) / 2)
        limits = threshold(x, eps)

        def slope() -> Tensor:
            return value_and_derivative(pure, (x + x_b) / 2)[1]

        pairs = ((*changes, whole), (parts.plus_change, parts.minus_change, x - x_b))
        of_plus, of_minus, of_whole = (
            difference_quotient(change, part, limits, slope)
            for change, part in zip(*pairs, strict=True)
        )
    surrogate = of_plus * parts.plus + of_minus * parts.minus
    return with_surrogate_gradient(surrogate + of_whole * (call.input - parts.whole), value)


def _of_weights(call: Call, reference: Tensor, whole: Tensor) -> Parts:
    """The parts of a convolution or a linear layer: each weight by the sign of its contribution."""
    found = linear_map(call.detached())
    assert found is not None
    raising = found.with_weight(partial(torch.clamp, min=0))
    lowering = found.with_weight(partial(torch.clamp, max=0))
    change = call.input.detach() - reference
    ups, downs = _halves(call.input, change)
    more, less = change.clamp(min=0), change.clamp(max=0)
    return Parts(
        _sum(raising, ups, lowering, downs),
        _sum(lowering, ups, raising, downs),
        whole,
        _sum(raising, more, lowering, less),
        _sum(lowering, more, raising, less),
    )


def _of_itself(tensor: Tensor, reference: Tensor) -> Parts:
    """The parts of a tensor that stands for one contribution."""
    change = tensor.detach() - reference
    plus, minus = _halves(tensor, change)
    return Parts(plus, minus, tensor, change.clamp(min=0), change.clamp(max=0))


def _halves(tensor: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
    """The tensor where it rose, and where it fell; half of it where it did neither."""
    share = (change.sign() + 1) / 2
    return tensor * share, tensor * (1 - share)


def _sum(first: LinearMap, of_first: Tensor, second: LinearMap, of_second: Tensor) -> Tensor:
    return first.apply(of_first) + second.apply(of_second)


def _replaced(call: Call, operand: Tensor, tensor: Tensor) -> Tensor:
    """A call on another tensor in the place of its operand."""
    arguments = map_tensors(call.arguments, lambda old: tensor if old is operand else old)
    positional = arguments.pop("operands", ())
    result: Tensor = call.operation.pure(*positional, **arguments)
    return result


def _two_terms(call: Call) -> tuple[Any, Any]:
    """Both terms of a sum, passed by position or by name."""
    named = [call.arguments[name] for name in ("input", "other") if name in call.arguments]
    positional: tuple[Any, ...] = call.get("operands", ())
    first, second, *_ = [*positional, *named]
    return first, second


def _factors(call: Call) -> tuple[float, float]:
    first, second = SUMS[call.name]
    alpha = float(call.get("alpha", 1))
    return (first * alpha, second) if call.name == "rsub" else (first, second * alpha)


def _scaled(made: Callable[[], Parts], factor: float) -> Parts:
    parts = made()
    return parts if factor == 1 else parts.scaled(parts.plus.new_tensor(factor))
