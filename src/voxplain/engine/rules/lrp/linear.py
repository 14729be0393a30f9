"""Calls with LRP redistributions as their backward: linear maps, sums, norms, first-order parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from voxplain.engine.rules.calls import Call
from voxplain.engine.rules.lrp.layer_rules import (
    Epsilon,
    Layer,
    LayerRule,
    divide_stabilized,
    total,
)
from voxplain.engine.rules.lrp.mode import ConservationLedger
from voxplain.engine.rules.norms import with_frozen_statistics
from voxplain.engine.rules.redistribution import LinearMap, with_redistribution
from voxplain.engine.tensors import wide


def by_layer_rule(
    linear_map: LinearMap,
    operand: Tensor,
    value: Tensor,
    rule: Callable[[], LayerRule | None],
    conservation: ConservationLedger,
    intensities: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """A linear call of one operand under a layer rule.

    Args:
        linear_map: The call as a map.
        operand: Its operand, in the graph.
        value: Its result, detached.
        rule: Returns the rule at the time of the backward, when the depth of the network is known;
            None for relevance that passes unchanged.
        conservation: For the relevance of bias and stabilizer.
        intensities: Smallest and largest intensity at each place, if the operand is the image.
    """

    def backward(q: Tensor, x: Tensor) -> tuple[Tensor]:
        layer_rule = rule()
        if layer_rule is None:
            return (q,)
        x = x.to(wide(x.dtype))
        low, high = (None, None) if intensities is None else (end.to(x) for end in intensities)
        split = layer_rule.split(Layer(linear_map, x, low, high), q.to(x.dtype))
        conservation.add(split.bias, split.epsilon)
        return (split.relevance,)

    return with_redistribution(value, [operand], backward, [operand.detach()])


def by_epsilon(
    linear_map: LinearMap,
    operand: Tensor,
    value: Tensor,
    epsilon: float,
    conservation: ConservationLedger,
) -> Tensor:
    """A linear call of one operand under the epsilon rule, whatever the composite."""
    return by_layer_rule(linear_map, operand, value, lambda: Epsilon(epsilon), conservation)


def split_equally(
    maps: Sequence[LinearMap],
    operands: Sequence[Tensor],
    value: Tensor,
    epsilon: float,
    conservation: ConservationLedger,
) -> Tensor:
    """A call that is linear in each of two operands: half of the relevance to each, by epsilon.

    Args:
        maps: Per operand the call with the other operand held fixed.
        operands: In the graph.
        value: The result of the call.
        epsilon: Of the rule.
        conservation: For the relevance of the stabilizer.
    """

    def backward(q: Tensor, *saved: Tensor) -> tuple[Tensor, ...]:
        relevances = []
        for linear_map, x in zip(maps, saved, strict=True):
            split = Epsilon(epsilon).split(Layer(linear_map, x), q / len(maps))
            conservation.add(split.bias, split.epsilon)
            relevances.append(split.relevance)
        return tuple(relevances)

    return with_redistribution(
        value, operands, backward, [operand.detach() for operand in operands]
    )


def through_sum(
    terms: Sequence[tuple[Tensor, float]],
    dependent: Sequence[bool],
    value: Tensor,
    epsilon: float,
    conservation: ConservationLedger,
    *,
    overwritten: bool = False,
) -> Tensor:
    """A sum of operands with factors: relevance in proportion to the terms, by epsilon.

    Args:
        terms: Operand and factor; operands broadcast to the value.
        dependent: Which of them depend on the image; the others count as biases.
        value: The sum.
        epsilon: Of the rule.
        conservation: For the relevance of constants and stabilizer.
        overwritten: Whether the caller will write the sum into the first operand.
    """
    factors = [factor for _, factor in terms]

    def backward(q: Tensor, *saved: Tensor) -> tuple[Tensor, ...]:
        scaled = [x * factor for x, factor in zip(saved, factors, strict=True)]
        sums = scaled[0].expand_as(q)
        for term in scaled[1:]:
            sums = sums + term
        quotient, absorbed = divide_stabilized(q, sums, epsilon)
        relevances = [(term * quotient).sum_to_size(term.shape) for term in scaled]
        pairs = list(zip(relevances, dependent, strict=True))
        of_constants = [total(relevance) for relevance, depends in pairs if not depends]
        conservation.add(sum(of_constants, torch.zeros_like(absorbed)), absorbed)
        return tuple(relevance for relevance, depends in pairs if depends)

    operands = [operand for (operand, _), depends in zip(terms, dependent, strict=True) if depends]
    saved = [operand.detach() for operand, _ in terms]
    if overwritten:
        saved[0] = saved[0].clone()
    return with_redistribution(value, operands, backward, saved)


def through_norm(
    call: Call,
    value: Tensor,
    rule: Callable[[], LayerRule | None],
    conservation: ConservationLedger,
) -> Tensor:
    """A norm with its statistics frozen, as an affine map under the epsilon rule.

    The shift (the frozen mean and the bias of the norm) absorbs relevance as a bias does.

    Args:
        call: An instance, group, layer, RMS or batch norm that uses the input's statistics.
        value: Its result.
        rule: Returns the epsilon rule, or None for relevance that passes unchanged.
        conservation: For the relevance of shift and stabilizer.
    """
    detached = call.detached()

    def backward(q: Tensor, x: Tensor) -> tuple[Tensor]:
        layer_rule = rule()
        if not isinstance(layer_rule, Epsilon):
            return (q,)
        x = x.to(wide(x.dtype))
        slope, sums = with_frozen_statistics(detached, x)
        quotient, absorbed = divide_stabilized(q.to(x.dtype), sums, layer_rule.epsilon)
        relevance = x * slope * quotient
        conservation.add(total(sums * quotient) - total(relevance), absorbed)
        return (relevance,)

    return with_redistribution(value, [call.input], backward, [call.input.detach()])


def by_first_order(
    function: Callable[[Tensor], Tensor],
    operand: Tensor,
    value: Tensor,
    epsilon: float,
    conservation: ConservationLedger,
) -> Tensor:
    """A nonlinear function by its first-order Taylor part; the rest counts as a bias.

    For softmax this is R_i = z_i (R_i - y_i sum R) (Achtibat et al., 2024).
    """

    def backward(q: Tensor, x: Tensor) -> tuple[Tensor]:
        sums, adjoint = LinearMap(lambda z, _: function(z)).value_and_adjoint(x)
        quotient, absorbed = divide_stabilized(q, sums, epsilon)
        relevance = torch.where(torch.isfinite(x), x, 0.0) * adjoint(quotient)
        conservation.add(total(sums * quotient) - total(relevance), absorbed)
        return (relevance,)

    return with_redistribution(value, [operand], backward, [operand.detach()])


def through_concatenation(
    value: Tensor, is_constant: Tensor, conservation: ConservationLedger
) -> Tensor:
    """A concatenation in its own graph; relevance of its constants is counted as that of a bias.

    Args:
        value: The result, in the graph.
        is_constant: 1 for elements of constants, else 0; broadcastable to the value.
        conservation: For the relevance of the constants.
    """

    def backward(q: Tensor, is_constant: Tensor) -> tuple[Tensor]:
        of_constants = total(q * is_constant)
        conservation.add(of_constants, torch.zeros_like(of_constants))
        return (q,)

    return with_redistribution(value.detach(), [value], backward, [is_constant])
