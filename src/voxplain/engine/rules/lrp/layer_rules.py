"""The layer rules of layer-wise relevance propagation.

A layer computes z_j = sum_i c_ij + b_j from contributions c_ij = x_i w_ij. A rule redistributes the
relevance R_j to the inputs. Denominators are kept away from 0 by ``stabilize``. The relevance that
the bias and the stabilizer absorb is returned beside that of the inputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from voxplain.engine.rules.redistribution import LinearMap
from voxplain.errors import ConfigError

EPSILON = 1e-6
"""Stabilizer, relative to the root mean square of the denominators of one row."""
_ROUNDING = 64
"""How many units in the last place a sum of a convolution may be off."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One linear call.

    Attributes:
        linear_map: The call as a map, its bias apart.
        input: x, detached.
        low: Smallest model-space intensity, broadcastable to x; for the box rule alone.
        high: Largest one.
    """

    linear_map: LinearMap
    input: Tensor
    low: Tensor | None = None
    high: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Split:
    """The redistributed relevance of one call.

    Attributes:
        relevance: Relevance of the input, of its shape.
        bias: Relevance absorbed by the bias, a float64 scalar.
        epsilon: Relevance absorbed by the stabilizer.
    """

    relevance: Tensor
    bias: Tensor
    epsilon: Tensor


class LayerRule(ABC):
    """A rule of the literature; subclasses are frozen dataclasses."""

    @abstractmethod
    def split(self, layer: Layer, relevance: Tensor) -> Split:
        """Redistributes the relevance of the output of a layer to its input.

        Args:
            layer: The call.
            relevance: R, of the shape of the output.
        """


@dataclass(frozen=True)
class Epsilon(LayerRule):
    """``R_i = sum_j c_ij / (z_j + e sign(z_j)) R_j`` (Bach et al., 2015).

    Attributes:
        epsilon: e relative to the root mean square of z; 0 is LRP-0.
    """

    epsilon: float = EPSILON

    def split(self, layer: Layer, relevance: Tensor) -> Split:
        """Relevance in proportion to the contributions of both signs."""
        sums, adjoint = layer.linear_map.value_and_adjoint(layer.input)
        bias = _bias(layer.linear_map, sums)
        quotient, absorbed = divide_stabilized(relevance, sums + bias, self.epsilon)
        return Split(layer.input * adjoint(quotient), total(bias * quotient), absorbed)


@dataclass(frozen=True)
class Gamma(LayerRule):
    """Contributions of the sign of their sum count 1 + gamma times (Montavon et al., 2019).

    ``c + gamma c+`` if z_j >= 0 and ``c + gamma c-`` if z_j < 0, bias included, divided by their
    own sum. The second case is the extension to rectifiers with negative values.

    Attributes:
        gamma: Additional weight of the favored sign; 0 is the epsilon rule.
        epsilon: As in :class:`Epsilon`.
    """

    gamma: float = 0.25
    epsilon: float = EPSILON

    def split(self, layer: Layer, relevance: Tensor) -> Split:
        """Relevance in proportion to the weighted contributions."""
        raising, lowering = _contributions(layer, 1), _contributions(layer, -1)
        bias = _bias(layer.linear_map, raising.sums)
        upward = raising.sums + lowering.sums + bias >= 0
        more = torch.where(upward, 1 + self.gamma, 1.0).to(raising.sums)
        less = torch.where(upward, 1.0, 1 + self.gamma).to(raising.sums)
        bias = bias * torch.where(bias > 0, more, less)
        sums = more * raising.sums + less * lowering.sums + bias
        quotient, absorbed = divide_stabilized(relevance, sums, self.epsilon)
        redistributed = raising.spread(more * quotient) + lowering.spread(less * quotient)
        return Split(redistributed, total(bias * quotient), absorbed)


@dataclass(frozen=True)
class AlphaBeta(LayerRule):
    """``alpha c+ / sum c+ R - beta c- / sum c- R`` with alpha - beta = 1 (Bach et al., 2015).

    The sums are those of the contributions alone, so a bias absorbs nothing. If there is no
    contribution of a sign, the relevance of that sign is counted with that of the stabilizer.

    Attributes:
        alpha: Weight of the positive contributions; 1 (with beta 0) is the z-plus rule.
        beta: Weight of the negative ones.
        epsilon: As in :class:`Epsilon`.

    Raises:
        ConfigError: If alpha - beta is not 1, which would not conserve relevance.
    """

    alpha: float = 1.0
    beta: float = 0.0
    epsilon: float = EPSILON

    def __post_init__(self) -> None:
        if abs(self.alpha - self.beta - 1) > 1e-9 or self.beta < 0:
            raise ConfigError(
                f"alpha - beta must be 1 and beta at least 0; with alpha {self.alpha:g} beta "
                f"would be {self.alpha - 1:g}"
            )

    def split(self, layer: Layer, relevance: Tensor) -> Split:
        """Relevance of each sign in proportion to the contributions of that sign."""
        redistributed = self.alpha * self._signed(layer, 1, relevance)
        if self.beta:
            redistributed = redistributed - self.beta * self._signed(layer, -1, relevance)
        return Split(redistributed, _zero(redistributed), total(relevance) - total(redistributed))

    def _signed(self, layer: Layer, sign: int, relevance: Tensor) -> Tensor:
        contributions = _contributions(layer, sign)
        quotient, _ = divide_stabilized(relevance, contributions.sums, self.epsilon)
        return contributions.spread(quotient)


@dataclass(frozen=True)
class Box(LayerRule):
    """``x w - l w+ - h w-`` by its sum, for intensities between l and h (Montavon et al., 2017).

    For layers that read the image itself. The bias absorbs nothing. Where every intensity is the
    least favorable one, as in an image without contrast, nothing can be in proportion to it: the
    relevance is counted with that of the stabilizer.

    Attributes:
        epsilon: As in :class:`Epsilon`.
    """

    epsilon: float = EPSILON

    def split(self, layer: Layer, relevance: Tensor) -> Split:
        """Relevance in proportion to the distance from the least favorable intensity."""
        if layer.low is None or layer.high is None:
            raise ValueError("the box rule needs the range of the image")
        low, high = (bound.expand_as(layer.input) for bound in (layer.low, layer.high))
        parts = (
            (layer.input, layer.linear_map.value_and_adjoint(layer.input)),
            (-low, _signed(layer.linear_map, 1).value_and_adjoint(low)),
            (-high, _signed(layer.linear_map, -1).value_and_adjoint(high)),
        )
        (_, (at_x, _)), (_, (at_low, _)), (_, (at_high, _)) = parts
        distances = _without_rounding(at_x - at_low - at_high, at_x, at_low, at_high)
        quotient, _ = divide_stabilized(relevance, distances, self.epsilon)
        redistributed = torch.zeros_like(layer.input)
        for value, (_, adjoint) in parts:
            redistributed = redistributed + value * adjoint(quotient)
        return Split(redistributed, _zero(redistributed), total(relevance) - total(redistributed))


@dataclass(frozen=True)
class Flat(LayerRule):
    """Every input of the receptive field gets the same relevance (Bach et al., 2016).

    For layers that read the image itself. Padding is not an input and gets nothing.
    """

    def split(self, layer: Layer, relevance: Tensor) -> Split:
        """Relevance in equal parts."""
        even = layer.linear_map.with_weight(torch.ones_like)
        counts, adjoint = even.value_and_adjoint(torch.ones_like(layer.input))
        quotient, absorbed = divide_stabilized(relevance, counts, 0.0)
        redistributed = adjoint(quotient)
        return Split(redistributed, _zero(redistributed), absorbed)


@dataclass(frozen=True, eq=False)
class _Contributions:
    """Contributions of one sign: their sums, and a function that redistributes a quotient."""

    sums: Tensor
    spread: Callable[[Tensor], Tensor]


def _contributions(layer: Layer, sign: int) -> _Contributions:
    """Positive contributions: x and w of equal signs; negative ones: of different signs."""
    pairs = [(layer.input.clamp(min=0), _signed(layer.linear_map, sign))]
    if bool((layer.input < 0).any()):
        pairs.append((layer.input.clamp(max=0), _signed(layer.linear_map, -sign)))
    evaluated = [(x, *linear_map.value_and_adjoint(x)) for x, linear_map in pairs]

    def spread(quotient: Tensor) -> Tensor:
        relevances = [x * adjoint(quotient) for x, _, adjoint in evaluated]
        return torch.stack(relevances).sum(0) if len(relevances) > 1 else relevances[0]

    sums = [value for _, value, _ in evaluated]
    return _Contributions(torch.stack(sums).sum(0) if len(sums) > 1 else sums[0], spread)


def _signed(linear_map: LinearMap, sign: int) -> LinearMap:
    """The map with its weights of one sign; a function's own weights are positive."""
    if linear_map.weight is None and sign < 0:
        return replace(linear_map, function=lambda x, weight: 0 * linear_map.function(x, weight))
    if sign > 0:
        return linear_map.with_weight(lambda weight: weight.clamp(min=0))
    return linear_map.with_weight(lambda weight: weight.clamp(max=0))


def stabilize(sums: Tensor, epsilon: float = EPSILON) -> Tensor:
    """``z + e sign(z)`` with sign(0) = 1 and e relative to the root mean square of each row.

    A row is one index of the first axis, so images of a batch do not affect each other.
    """
    magnitude = sums.abs() if sums.ndim < 2 else sums.square().flatten(1).mean(1).sqrt()
    margin = epsilon * magnitude.reshape(magnitude.shape + (1,) * (sums.ndim - magnitude.ndim))
    return torch.where(sums < 0, sums - margin, sums + margin)


def divide_stabilized(
    relevance: Tensor, sums: Tensor, epsilon: float = EPSILON
) -> tuple[Tensor, Tensor]:
    """``R / stabilize(z)`` (0 where z is 0), and the relevance absorbed by the stabilizer."""
    denominator = stabilize(sums, epsilon)
    zero = denominator == 0
    quotient = torch.where(zero, 0.0, relevance / torch.where(zero, 1.0, denominator))
    return quotient, total(relevance) - total(quotient * sums)


def _without_rounding(difference: Tensor, *terms: Tensor) -> Tensor:
    """A difference of large terms, 0 where it is no more than what rounding leaves of them."""
    largest = torch.stack([term.abs() for term in terms]).amax(0)
    noise = _ROUNDING * torch.finfo(difference.dtype).eps * largest
    return torch.where(difference.abs() <= noise, 0.0, difference)


def accumulator(tensor: Tensor) -> torch.dtype:
    """The type of sums of relevance: float64 if the device supports it, else float32."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def total(values: Tensor) -> Tensor:
    """The sum in :func:`accumulator`."""
    return values.sum(dtype=accumulator(values))


def _zero(like: Tensor) -> Tensor:
    return like.new_zeros((), dtype=accumulator(like))


def _bias(linear_map: LinearMap, sums: Tensor) -> Tensor:
    if linear_map.bias is None:
        return sums.new_zeros(()).expand_as(sums)
    return linear_map.bias.to(sums).expand_as(sums)
