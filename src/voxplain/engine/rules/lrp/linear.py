"""Relevance through calls that are linear in what they act on: the value, with shares behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from voxplain.engine.rules.calls import Call
from voxplain.engine.rules.lrp.layer_rules import Epsilon, Layer, LayerRule, divided, total
from voxplain.engine.rules.lrp.mode import ConservationLedger
from voxplain.engine.rules.norms import frozen_slope
from voxplain.engine.rules.redistribution import LinearMap, redistributed
from voxplain.engine.tensors import wide


def under_rule(
    map: LinearMap,
    operand: Tensor,
    value: Tensor,
    rule: Callable[[], LayerRule | None],
    balance: ConservationLedger,
    ends: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """A linear call of one operand under a layer rule.

    Args:
        map: The call as a map.
        operand: What it acts on, in the graph.
        value: The result of the call, outside the graph.
        rule: Asked at the time of the backward, when the depth of the network is known.
        balance: Where the shares of bias and stabilizer are booked.
        ends: Smallest and largest intensity at each place, for a call that reads the image.
    """

    def backward(q: Tensor, x: Tensor) -> tuple[Tensor]:
        chosen = rule()
        if chosen is None:
            return (q,)
        x = x.to(wide(x.dtype))
        low, high = (None, None) if ends is None else (end.to(x) for end in ends)
        found = chosen.split(Layer(map, x, low, high), q.to(x.dtype))
        balance.take(found.bias, found.epsilon)
        return (found.relevance,)

    return redistributed(value, [operand], backward, [operand.detach()])


def linear(
    map: LinearMap, operand: Tensor, value: Tensor, epsilon: float, balance: ConservationLedger
) -> Tensor:
    """A linear call of one operand that composites have no say in: the epsilon rule."""
    return under_rule(map, operand, value, lambda: Epsilon(epsilon), balance)


def halved(
    maps: Sequence[LinearMap],
    operands: Sequence[Tensor],
    value: Tensor,
    epsilon: float,
    balance: ConservationLedger,
) -> Tensor:
    """A call that is linear in each of two operands: half to each, both by the epsilon rule.

    Args:
        maps: Per operand the call with the other one held fixed.
        operands: In the graph.
        value: The result of the call.
        epsilon: Of the rule.
        balance: For what the stabilizer takes.
    """

    def backward(q: Tensor, *kept: Tensor) -> tuple[Tensor, ...]:
        shares = []
        for map, x in zip(maps, kept, strict=True):
            found = Epsilon(epsilon).split(Layer(map, x), q / len(maps))
            balance.take(found.bias, found.epsilon)
            shares.append(found.relevance)
        return tuple(shares)

    return redistributed(value, operands, backward, [operand.detach() for operand in operands])


def added(
    parts: Sequence[tuple[Tensor, float]],
    moving: Sequence[bool],
    value: Tensor,
    epsilon: float,
    balance: ConservationLedger,
    *,
    overwritten: bool = False,
) -> Tensor:
    """A sum of operands, each with a factor: in proportion to what each contributes.

    Args:
        parts: Operand and factor; operands broadcast to the value.
        moving: Which of them depend on the image; the others count as biases.
        value: The sum.
        epsilon: Of the rule.
        balance: For the shares of constants and stabilizer.
        overwritten: Whether the caller is about to write the sum into the first operand.
    """
    factors = [factor for _, factor in parts]

    def backward(q: Tensor, *kept: Tensor) -> tuple[Tensor, ...]:
        scaled = [x * factor for x, factor in zip(kept, factors, strict=True)]
        sums = scaled[0].expand_as(q)
        for part in scaled[1:]:
            sums = sums + part
        quotient, lost = divided(q, sums, epsilon)
        shares = [(part * quotient).sum_to_size(part.shape) for part in scaled]
        still = [share for share, moves in zip(shares, moving, strict=True) if not moves]
        balance.take(sum((total(share) for share in still), torch.zeros_like(lost)), lost)
        return tuple(share for share, moves in zip(shares, moving, strict=True) if moves)

    operands = [part for (part, _), moves in zip(parts, moving, strict=True) if moves]
    kept = [part.detach() for part, _ in parts]
    if overwritten:
        kept[0] = kept[0].clone()
    return redistributed(value, operands, backward, kept)


def normalized(
    call: Call, value: Tensor, rule: Callable[[], LayerRule | None], balance: ConservationLedger
) -> Tensor:
    """A norm with the statistics of its input: they are frozen, and epsilon acts on what is left.

    The shift (the frozen mean and the bias of the norm) takes its part as a bias does.

    Args:
        call: An instance, group, layer, RMS or batch norm.
        value: Its result.
        rule: The epsilon rule, or None where relevance passes unchanged.
        balance: For the shares of shift and stabilizer.
    """
    rest = call.detached()

    def backward(q: Tensor, x: Tensor) -> tuple[Tensor]:
        chosen = rule()
        if not isinstance(chosen, Epsilon):
            return (q,)
        x = x.to(wide(x.dtype))
        slope, sums = frozen_slope(rest, x)
        quotient, lost = divided(q.to(x.dtype), sums, chosen.epsilon)
        share = x * slope * quotient
        balance.take(total(sums * quotient) - total(share), lost)
        return (share,)

    return redistributed(value, [call.input], backward, [call.input.detach()])


def linearized(
    function: Callable[[Tensor], Tensor],
    operand: Tensor,
    value: Tensor,
    epsilon: float,
    balance: ConservationLedger,
) -> Tensor:
    """A nonlinear function by its first-order part at the operand; the rest counts as a bias.

    For softmax this is R_i = z_i (R_i - y_i sum R) (Achtibat et al., 2024).
    """

    def backward(q: Tensor, x: Tensor) -> tuple[Tensor]:
        sums, transposed = LinearMap(lambda z, _: function(z)).linearized(x)
        quotient, lost = divided(q, sums, epsilon)
        share = torch.where(torch.isfinite(x), x, 0.0) * transposed(quotient)
        balance.take(total(sums * quotient) - total(share), lost)
        return (share,)

    return redistributed(value, [operand], backward, [operand.detach()])


def joined(value: Tensor, constant: Tensor, balance: ConservationLedger) -> Tensor:
    """A concatenation in the graph; what arrives at its constant parts is booked as bias.

    Args:
        value: The result, in the graph.
        constant: True where it is a constant, broadcastable to it.
        balance: The books.
    """

    def backward(q: Tensor, still: Tensor) -> tuple[Tensor]:
        taken = total(q * still)
        balance.take(taken, torch.zeros_like(taken))
        return (q,)

    return redistributed(value.detach(), [value], backward, [constant])
