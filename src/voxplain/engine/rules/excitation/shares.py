"""Excitation backprop of single functions: how a winning probability q is shared out.

A positive q is evidence for y and goes to what raises y. A negative q is evidence against y, and
occurs above the last weights alone, where a network is asked about -S: it goes to what lowers y.
Behind weights it is evidence for a feature, and positive.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from voxplain.engine.rules.lrp.layer_rules import total
from voxplain.engine.rules.redistribution import LinearMap, redistributed
from voxplain.engine.tensors import wide


class Lost:
    """The evidence that ended at constants or at units which nothing raises, over one backward."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None

    def take(self, evidence: Tensor) -> None:
        """Adds what could not be handed on."""
        amount = total(evidence.abs())
        self._sum = amount if self._sum is None else self._sum + amount

    @property
    def amount(self) -> float:
        """The sum, of all images together."""
        return 0.0 if self._sum is None else float(self._sum)


def over_weights(
    value: Tensor, operand: Tensor, kept: Tensor, linear: LinearMap, lost: Lost
) -> Tensor:
    """``p = x+ * (W+)^T (q / z)`` with ``z = W+ x+``, and 0 where z = 0; the bias is dropped.

    For a negative q the weights are negated, ``W- = max(0, -W)``.

    Args:
        value: What the call gave.
        operand: x, in the graph.
        kept: x outside the graph, as the call saw it.
        linear: The call.
        lost: Takes what arrives where z = 0.
    """

    def backward(q: Tensor, x: Tensor) -> tuple[Tensor]:
        excitatory = linear.with_weight(partial(torch.clamp, min=0))
        share = _share(excitatory, x.clamp(min=0), q.clamp(min=0), lost)
        if bool((q < 0).any()):
            inhibitory = linear.with_weight(lambda weight: (-weight).clamp(min=0))
            share = share + _share(inhibitory, x.clamp(min=0), (-q).clamp(min=0), lost)
        return (share,)

    return redistributed(value, (operand,), backward, (kept,))


def over_sums(
    value: Tensor, operand: Tensor, kept: Tensor, linear: LinearMap, lost: Lost
) -> Tensor:
    """The same for weights that are positive by the nature of the function, as those of a mean.

    A negative q goes to what is negative, ``p = -x- * W^T (|q| / W x-)``, and stays negative.
    """

    def backward(q: Tensor, x: Tensor) -> tuple[Tensor]:
        share = _share(linear, x.clamp(min=0), q.clamp(min=0), lost)
        if bool((q < 0).any()):
            share = share - _share(linear, (-x).clamp(min=0), (-q).clamp(min=0), lost)
        return (share,)

    return redistributed(value, (operand,), backward, (kept,))


def _share(linear: LinearMap, x: Tensor, q: Tensor, lost: Lost) -> Tensor:
    """Nothing of x and q is negative here."""
    dtype = wide(x.dtype)
    x = x.to(dtype)
    z, transposed = linear.linearized(x)
    found = z > _smallest(dtype)
    lost.take(q[~found])
    ratio = torch.where(found, q.to(z.dtype) / torch.where(found, z, 1.0), 0.0)
    return x * transposed(ratio)


def _smallest(dtype: torch.dtype) -> float:
    """Below it a sum counts as 0, since q / z would overflow."""
    return float(torch.finfo(dtype).tiny ** 0.5)


def over_branches(
    value: Tensor,
    operands: Sequence[Tensor],
    kept: Sequence[Tensor],
    signs: Sequence[float],
    lost: Lost,
) -> Tensor:
    """``p_u = q * u+ / (u+ + v+)`` for y = u + v; where both are 0 half each.

    For y = u - v a positive q is u's alone. A negative q goes to what lowers y: ``u-`` of a
    summand, which stays evidence against it, and ``v+`` of what is subtracted, for it.

    Args:
        value: What the call gave.
        operands: The terms in the graph.
        kept: The terms outside of it.
        signs: Factor of each term.
        lost: Takes a positive q where no term is added.
    """

    def backward(q: Tensor, *terms: Tensor) -> tuple[Tensor, ...]:
        typed = [term.to(wide(term.dtype)) for term in terms]
        pulls = [sign * term for sign, term in zip(signs, typed, strict=True)]
        raising = [pull.clamp(min=0) for pull in pulls]
        parts = _parts([up if sign > 0 else None for up, sign in zip(raising, signs, strict=True)])
        shares = [q.clamp(min=0) * part for part in parts]
        if max(signs) < 0:
            lost.take(q.clamp(min=0))
        if bool((q < 0).any()):
            parts = _parts([(-pull).clamp(min=0) for pull in pulls])
            back = [math.copysign(1, sign) * (-q).clamp(min=0) for sign in signs]
            shares = [
                share - one * part for share, one, part in zip(shares, back, parts, strict=True)
            ]
        return tuple(
            share.expand_as(q).sum_to_size(term.shape)
            for share, term in zip(shares, terms, strict=True)
        )

    return redistributed(value, operands, backward, kept)


def _parts(weights: list[Tensor | None]) -> list[Tensor | float]:
    """Each weight over their sum; evenly where the sum is 0; nothing for those without one."""
    given = [weight for weight in weights if weight is not None]
    if not given:
        return [0.0] * len(weights)
    whole = sum(given[1:], given[0])
    found = whole > _smallest(whole.dtype)
    over = torch.where(found, whole, 1.0)
    return [
        0.0 if weight is None else torch.where(found, weight / over, 1 / len(given))
        for weight in weights
    ]


def past_constants(value: Tensor, constants: Callable[[], Tensor], lost: Lost) -> Tensor:
    """A selection in its own graph; what falls on entries that are constants is booked as lost.

    Args:
        value: What the call gave, in the graph.
        constants: Gives a tensor like it that is 1 where an entry is a constant.
        lost: Takes what arrives there.
    """

    def backward(q: Tensor) -> tuple[Tensor]:
        lost.take(q * constants())
        return (q,)

    return redistributed(value.detach(), (value,), backward)


def over_factor(value: Tensor, operand: Tensor, factor: Tensor, lost: Lost) -> Tensor:
    """All of q to the signal of a product where its factor is positive, a gate or a constant.

    Where the factor is negative a positive q gets lost, and a negative q becomes evidence.

    Args:
        value: What the call gave.
        operand: The signal, in the graph.
        factor: What it was multiplied with, outside the graph.
        lost: Takes what arrives where the factor gives it nowhere to go.
    """
    shape = operand.shape

    def backward(q: Tensor, factor: Tensor) -> tuple[Tensor]:
        share = torch.where(factor > 0, q, torch.where(factor < 0, (-q).clamp(min=0), 0.0))
        lost.take(q[((factor > 0) | ((factor < 0) & (q < 0))).logical_not()])
        return (share.sum_to_size(shape),)

    return redistributed(value, (operand,), backward, (factor,))
