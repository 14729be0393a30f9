"""How one linear call shares out relevance: the layer rules of layer-wise relevance propagation.

A layer computes z_j = sum_i c_ij + b_j from contributions c_ij = x_i w_ij. A rule says which part
of the relevance R_j each input gets. Sums over a denominator are kept away from 0 by
``stabilized``; what the bias and the stabilizer take is returned beside the relevance, so that
nothing is lost unseen.
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


@dataclass(frozen=True, eq=False)
class Layer:
    """One linear call.

    Attributes:
        map: The linear part with its bias set apart.
        input: x, outside the graph.
        low: Smallest model-space intensity, broadcastable to x; for the box rule alone.
        high: Largest one.
    """

    map: LinearMap
    input: Tensor
    low: Tensor | None = None
    high: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Split:
    """Where the relevance of one call went.

    Attributes:
        relevance: Of the input, of its shape.
        bias: Sum of what the bias took, a float64 scalar.
        epsilon: Sum of what the stabilizer took.
    """

    relevance: Tensor
    bias: Tensor
    epsilon: Tensor


class LayerRule(ABC):
    """A rule of the literature; subclasses are frozen dataclasses."""

    @abstractmethod
    def split(self, layer: Layer, relevance: Tensor) -> Split:
        """Shares out the relevance of the output of a layer.

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
        """In proportion to the contributions, of either sign."""
        sums, transposed = layer.map.linearized(layer.input)
        bias = _bias(layer.map, sums)
        quotient, lost = divided(relevance, sums + bias, self.epsilon)
        return Split(layer.input * transposed(quotient), total(bias * quotient), lost)


@dataclass(frozen=True)
class Gamma(LayerRule):
    """Contributions of the sign of their sum count 1 + gamma times (Montavon et al., 2019).

    ``c + gamma c+`` where z_j >= 0 and ``c + gamma c-`` where z_j < 0, bias included, divided by
    their own sum. The second half is the extension to rectifiers with negative values.

    Attributes:
        gamma: How much one sign is favored; 0 is the epsilon rule.
        epsilon: As in :class:`Epsilon`.
    """

    gamma: float = 0.25
    epsilon: float = EPSILON

    def split(self, layer: Layer, relevance: Tensor) -> Split:
        """In proportion to the favored contributions."""
        raising, lowering = _contributions(layer, 1), _contributions(layer, -1)
        bias = _bias(layer.map, raising.sums)
        upward = raising.sums + lowering.sums + bias >= 0
        more = torch.where(upward, 1 + self.gamma, 1.0).to(raising.sums)
        less = torch.where(upward, 1.0, 1 + self.gamma).to(raising.sums)
        bias = bias * torch.where(bias > 0, more, less)
        sums = more * raising.sums + less * lowering.sums + bias
        quotient, lost = divided(relevance, sums, self.epsilon)
        found = raising.spread(more * quotient) + lowering.spread(less * quotient)
        return Split(found, total(bias * quotient), lost)


@dataclass(frozen=True)
class AlphaBeta(LayerRule):
    """``alpha c+ / sum c+ R - beta c- / sum c- R`` with alpha - beta = 1 (Bach et al., 2015).

    The sums are those of the contributions alone, so a bias takes nothing. Where there is no
    contribution of a sign, its part of the relevance is counted with the stabilizer's.

    Attributes:
        alpha: Weight of the positive contributions; 1 (with beta 0) is the z-plus rule.
        beta: Weight of the negative ones.
        epsilon: As in :class:`Epsilon`.

    Raises:
        ConfigError: If alpha - beta is not 1, which would create relevance out of nothing.
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
        """Each sign in proportion to its own contributions."""
        found = self.alpha * self._signed(layer, 1, relevance)
        if self.beta:
            found = found - self.beta * self._signed(layer, -1, relevance)
        return Split(found, _nothing(found), total(relevance) - total(found))

    def _signed(self, layer: Layer, sign: int, relevance: Tensor) -> Tensor:
        part = _contributions(layer, sign)
        quotient, _ = divided(relevance, part.sums, self.epsilon)
        return part.spread(quotient)


@dataclass(frozen=True)
class Box(LayerRule):
    """``x w - l w+ - h w-`` by its sum, for intensities between l and h (Montavon et al., 2017).

    For layers that read the image itself. The bias takes nothing.

    Attributes:
        epsilon: As in :class:`Epsilon`.
    """

    epsilon: float = EPSILON

    def split(self, layer: Layer, relevance: Tensor) -> Split:
        """In proportion to the distance from the worst intensity."""
        if layer.low is None or layer.high is None:
            raise ValueError("the box rule needs the range of the image")
        low, high = (bound.expand_as(layer.input) for bound in (layer.low, layer.high))
        parts = (
            (layer.input, layer.map.linearized(layer.input)),
            (-low, _signed(layer.map, 1).linearized(low)),
            (-high, _signed(layer.map, -1).linearized(high)),
        )
        (_, (at_x, _)), (_, (at_low, _)), (_, (at_high, _)) = parts
        quotient, lost = divided(relevance, at_x - at_low - at_high, self.epsilon)
        found = torch.zeros_like(layer.input)
        for value, (_, transposed) in parts:
            found = found + value * transposed(quotient)
        return Split(found, _nothing(found), lost)


@dataclass(frozen=True)
class Flat(LayerRule):
    """Every input of the receptive field gets the same share (Bach et al., 2016).

    For layers that read the image itself. What lies in the padding is no input and gets nothing.
    """

    def split(self, layer: Layer, relevance: Tensor) -> Split:
        """Evenly."""
        even = layer.map.with_weight(torch.ones_like)
        counts, transposed = even.linearized(torch.ones_like(layer.input))
        quotient, lost = divided(relevance, counts, 0.0)
        found = transposed(quotient)
        return Split(found, _nothing(found), lost)


@dataclass(frozen=True, eq=False)
class _Contributions:
    """The contributions of one sign: their sums, and how to spread a quotient over them."""

    sums: Tensor
    spread: Callable[[Tensor], Tensor]


def _contributions(layer: Layer, sign: int) -> _Contributions:
    """Positive contributions from equal signs of x and w, negative ones from different signs."""
    pairs = [(layer.input.clamp(min=0), _signed(layer.map, sign))]
    if bool((layer.input < 0).any()):
        pairs.append((layer.input.clamp(max=0), _signed(layer.map, -sign)))
    linearized = [(x, *map.linearized(x)) for x, map in pairs]

    def spread(quotient: Tensor) -> Tensor:
        shares = [x * transposed(quotient) for x, _, transposed in linearized]
        return torch.stack(shares).sum(0) if len(shares) > 1 else shares[0]

    sums = [part for _, part, _ in linearized]
    return _Contributions(torch.stack(sums).sum(0) if len(sums) > 1 else sums[0], spread)


def _signed(map: LinearMap, sign: int) -> LinearMap:
    """The map with its weights of one sign; those of the function itself are positive."""
    if map.weight is None and sign < 0:
        return replace(map, function=lambda x, weight: 0 * map.function(x, weight))
    if sign > 0:
        return map.with_weight(lambda weight: weight.clamp(min=0))
    return map.with_weight(lambda weight: weight.clamp(max=0))


def stabilized(sums: Tensor, epsilon: float = EPSILON) -> Tensor:
    """``z + e sign(z)`` with sign(0) = 1 and e relative to the root mean square of each row.

    Rows are those of the first axis, so that images of a batch do not touch each other.
    """
    magnitude = sums.abs() if sums.ndim < 2 else sums.square().flatten(1).mean(1).sqrt()
    margin = epsilon * magnitude.reshape(magnitude.shape + (1,) * (sums.ndim - magnitude.ndim))
    return torch.where(sums < 0, sums - margin, sums + margin)


def divided(relevance: Tensor, sums: Tensor, epsilon: float = EPSILON) -> tuple[Tensor, Tensor]:
    """``R / stabilized(z)``, 0 where z is, and the sum of what the stabilizer takes."""
    bottom = stabilized(sums, epsilon)
    empty = bottom == 0
    quotient = torch.where(empty, 0.0, relevance / torch.where(empty, 1.0, bottom))
    return quotient, total(relevance) - total(quotient * sums)


def accumulator(tensor: Tensor) -> torch.dtype:
    """The type in which shares are summed: float64 where the device has it."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def total(values: Tensor) -> Tensor:
    """The sum in :func:`accumulator`."""
    return values.sum(dtype=accumulator(values))


def _nothing(like: Tensor) -> Tensor:
    return like.new_zeros((), dtype=accumulator(like))


def _bias(map: LinearMap, sums: Tensor) -> Tensor:
    if map.bias is None:
        return sums.new_zeros(()).expand_as(sums)
    return map.bias.to(sums).expand_as(sums)
