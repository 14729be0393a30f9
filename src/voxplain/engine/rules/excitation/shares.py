"""Excitation backprop of single functions: how a winning probability q is redistributed.

A positive q is evidence for y and goes to operands that raise y. A negative q is evidence against
y and goes to operands that lower y; it occurs only above the last weights, if -S is explained.
Below weights it is evidence for a feature, and positive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from voxplain.engine.rules.calls import Call, OperationKind
from voxplain.engine.rules.lrp.layer_rules import total
from voxplain.engine.rules.mode import RuleMode
from voxplain.engine.rules.redistribution import LinearMap, with_redistribution
from voxplain.engine.tensors import TensorMarks, tensors_in, wide


class LostProbability:
    """Winning probability that ended at constants or at units which no input raises."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None

    def add(self, probability: Tensor) -> None:
        """Adds probability that cannot be redistributed."""
        amount = total(probability.abs())
        self._sum = amount if self._sum is None else self._sum + amount

    @property
    def amount(self) -> float:
        """The sum over one backward, all images together."""
        return 0.0 if self._sum is None else float(self._sum)


def through_weights(
    value: Tensor, operand: Tensor, saved: Tensor, linear: LinearMap, lost: LostProbability
) -> Tensor:
    """``p = x+ * (W+)^T (q / z)`` with ``z = W+ x+``, and 0 where z = 0; the bias is dropped.

    For a negative q the weights are negated, ``W- = max(0, -W)``.

    Args:
        value: Result of the call.
        operand: x, in the graph.
        saved: x detached, as it was at the call.
        linear: The call.
        lost: Gets the probability of outputs with z = 0.
    """

    def backward(q: Tensor, x: Tensor) -> tuple[Tensor]:
        excitatory = linear.with_weight(partial(torch.clamp, min=0))
        p = _redistribute(excitatory, x.clamp(min=0), q.clamp(min=0), lost)
        if bool((q < 0).any()):
            inhibitory = linear.with_weight(lambda weight: (-weight).clamp(min=0))
            p = p + _redistribute(inhibitory, x.clamp(min=0), (-q).clamp(min=0), lost)
        return (p,)

    return with_redistribution(value, (operand,), backward, (saved,))


def through_sums(
    value: Tensor, operand: Tensor, saved: Tensor, linear: LinearMap, lost: LostProbability
) -> Tensor:
    """The same for functions with non-negative weights of their own, as a mean has.

    A negative q goes to negative elements, ``p = -x- * W^T (|q| / W x-)``, and stays negative.
    """

    def backward(q: Tensor, x: Tensor) -> tuple[Tensor]:
        p = _redistribute(linear, x.clamp(min=0), q.clamp(min=0), lost)
        if bool((q < 0).any()):
            p = p - _redistribute(linear, (-x).clamp(min=0), (-q).clamp(min=0), lost)
        return (p,)

    return with_redistribution(value, (operand,), backward, (saved,))


def _redistribute(linear: LinearMap, x: Tensor, q: Tensor, lost: LostProbability) -> Tensor:
    """``x * W^T (q / W x)`` for non-negative W, x and q."""
    dtype = wide(x.dtype)
    x = x.to(dtype)
    z, adjoint = linear.value_and_adjoint(x)
    raised = z > _smallest_sum(dtype)
    lost.add(q[~raised])
    ratio = torch.where(raised, q.to(z.dtype) / torch.where(raised, z, 1.0), 0.0)
    return x * adjoint(ratio)


def _smallest_sum(dtype: torch.dtype) -> float:
    """A sum below this counts as 0, since q / z would overflow."""
    return float(torch.finfo(dtype).tiny ** 0.5)


def through_terms(
    value: Tensor,
    operands: Sequence[Tensor],
    saved: Sequence[Tensor],
    signs: Sequence[float],
    lost: LostProbability,
) -> Tensor:
    """``p_u = q * u+ / (u+ + v+)`` for y = u + v; half each if both are 0.

    For y = u - v a positive q goes to u alone. A negative q goes to what lowers y: to ``u-`` of a
    summand, where it stays evidence against, and to ``v+`` of a subtrahend, where it becomes
    evidence for.

    Args:
        value: Result of the call.
        operands: The terms, in the graph.
        saved: The terms, detached.
        signs: Factor of each term.
        lost: Gets a positive q if no term is added.
    """

    def backward(q: Tensor, *terms: Tensor) -> tuple[Tensor, ...]:
        typed = [term.to(wide(term.dtype)) for term in terms]
        signed = [sign * term for sign, term in zip(signs, typed, strict=True)]
        raising = [term.clamp(min=0) for term in signed]
        parts = _fractions(
            [up if sign > 0 else None for up, sign in zip(raising, signs, strict=True)]
        )
        redistributed = [q.clamp(min=0) * part for part in parts]
        if max(signs) < 0:
            lost.add(q.clamp(min=0))
        if bool((q < 0).any()):
            parts = _fractions([(-term).clamp(min=0) for term in signed])
            against = [math.copysign(1, sign) * (-q).clamp(min=0) for sign in signs]
            redistributed = [
                p - evidence * part
                for p, evidence, part in zip(redistributed, against, parts, strict=True)
            ]
        return tuple(
            p.expand_as(q).sum_to_size(term.shape)
            for p, term in zip(redistributed, terms, strict=True)
        )

    return with_redistribution(value, operands, backward, saved)


def _fractions(weights: list[Tensor | None]) -> list[Tensor | float]:
    """Each weight divided by their sum; equal if the sum is 0; 0 in the place of None."""
    given = [weight for weight in weights if weight is not None]
    if not given:
        return [0.0] * len(weights)
    whole = sum(given[1:], given[0])
    positive = whole > _smallest_sum(whole.dtype)
    divisor = torch.where(positive, whole, 1.0)
    return [
        0.0 if weight is None else torch.where(positive, weight / divisor, 1 / len(given))
        for weight in weights
    ]


def through_factor(value: Tensor, operand: Tensor, factor: Tensor, lost: LostProbability) -> Tensor:
    """All of q to the signal of a product, where its factor (a gate or a constant) is positive.

    Where the factor is negative, a positive q is lost and a negative q becomes evidence for.

    Args:
        value: Result of the call.
        operand: The signal, in the graph.
        factor: The other operand, detached.
        lost: Gets the probability that the signal does not.
    """
    shape = operand.shape

    def backward(q: Tensor, factor: Tensor) -> tuple[Tensor]:
        p = torch.where(factor > 0, q, torch.where(factor < 0, (-q).clamp(min=0), 0.0))
        lost.add(q[((factor > 0) | ((factor < 0) & (q < 0))).logical_not()])
        return (p.sum_to_size(shape),)

    return with_redistribution(value, (operand,), backward, (factor,))


_STRONG = ("sigmoid", "hardsigmoid", "softmax")
_WEAK = ("tanh", "hardtanh", "softsign", "relu6", "erf")
_SHAPED_LIKE = ("expand_as", "view_as", "reshape_as", "type_as", "to")
_KEEPING_GATES = (
    OperationKind.LINEAR,
    OperationKind.LINEAR_IN_FIRST,
    OperationKind.DROPOUT,
    OperationKind.SELECT,
    OperationKind.PRODUCT,
    OperationKind.QUOTIENT,
    OperationKind.MAXIMUM,
)


class Gates:
    """Gates, followed from the bounded function that made them through views and products.

    A product u * sigmoid(v), a squeeze-excitation, a softmax of an attention: which operand is
    the gate and which the signal cannot be told from their values, only from their origin.
    """

    def __init__(self) -> None:
        self._strong, self._weak = TensorMarks(), TensorMarks()

    def strength(self, tensor: Tensor) -> int:
        """2 for sigmoids and softmaxes (between 0 and 1), 1 for other bounded functions, else 0."""
        return 2 if tensor in self._strong else int(tensor in self._weak)

    def signal(self, mode: RuleMode, *operands: Any) -> int | None:
        """The position of the operand that is the signal; None if it is ambiguous.

        Args:
            mode: Tells which operands depend on the image.
            operands: Two or more operands of a product.
        """
        dependent = [at for at, operand in enumerate(operands) if mode.depends(operand)]
        ranked = sorted((self.strength(operands[at]), at) for at in dependent)
        if not ranked or (len(ranked) > 1 and ranked[0][0] == ranked[1][0]):
            return None
        return ranked[0][1]

    def mark(self, call: Call, result: Any, mode: RuleMode) -> None:
        """Marks the result of a call if it is a gate."""
        strength = self._strength_of_result(call, mode)
        if strength == 0:
            return
        for tensor in tensors_in(result):
            (self._strong if strength == 2 else self._weak).add(tensor)

    def _strength_of_result(self, call: Call, mode: RuleMode) -> int:
        if call.name in _STRONG:
            return 2
        if call.name in _WEAK:
            return 1
        if call.kind not in _KEEPING_GATES:
            return 0
        operands = list(call.operands())[: 1 if call.name in _SHAPED_LIKE else None]
        dependent = [operand for operand in operands if mode.depends(operand)]
        return min((self.strength(operand) for operand in dependent), default=0)
