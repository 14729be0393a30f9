"""The weight field, a target that is bound to an output, and the links that it is made of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from voxplain.errors import TargetError

Activation = Literal["auto", "softmax", "sigmoid", "softmax_inside", "sigmoid_inside", "none"]
"""What turns an output into probabilities; with ``_inside`` the network has done so itself."""
Link = Literal["identity", "probability", "log_odds", "square"]

INSIDE: tuple[Activation, ...] = ("softmax_inside", "sigmoid_inside")
"""Activations of outputs that are probabilities already."""
SEPARATE: tuple[Activation, ...] = ("sigmoid", "sigmoid_inside")
"""Activations under which each class is predicted for itself, so that classes may overlap."""

HALF = 2e-2
"""How far probabilities in half precision may lie beyond 0 and 1."""


@dataclass(frozen=True, eq=False)
class Term:
    """A weighted sum over classes and positions, W * link(f(x)).

    Attributes:
        weights: ``(B, K, *spatial)``, broadcastable to the output.
        link: The function of the output that is summed.
        activation: What turns the output into probabilities.
    """

    weights: Tensor
    link: Link = "identity"
    activation: Activation = "auto"

    def score(self, output: Tensor) -> Tensor:
        """The weighted sum per image, ``(B,)``, in float64 (float32 on MPS)."""
        linked = output
        if self.link != "identity":
            linked = apply_link(output, self.link, self.activation)
        return (self.weights * linked).flatten(1).sum(dim=1, dtype=_accumulator(output))


@dataclass(frozen=True, eq=False)
class WeightField:
    """S(x) = offset + sum of terms, fixed for every perturbed input.

    Attributes:
        terms: Weighted sums; several for a contrast of targets with different links.
        offset: ``(B,)``, added to the terms (such as the 1 in 1 - p of a one-logit network).
        layer: Path of the tapped layer to which the weights apply; None for the output.
        in_words: A description per image.
        remarks: Warnings for the reader of a map (such as a saturated probability).
        labels: The explained class per image; empty for targets that are not about a class.
    """

    terms: tuple[Term, ...]
    offset: Tensor
    in_words: tuple[str, ...]
    layer: str | None = None
    remarks: tuple[str, ...] = ()
    labels: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.offset)

    def score(self, output: Tensor) -> Tensor:
        """S per image, ``(B,)``, differentiable, in float64 (float32 on MPS)."""
        total = self.offset.to(_accumulator(output))
        for term in self.terms:
            total = total + term.score(output)
        return total

    @property
    def is_linear(self) -> bool:
        """Whether dS/dF does not depend on the output F."""
        return all(term.link == "identity" for term in self.terms)

    def cotangent(self, output: Tensor) -> Tensor:
        """dS/dF at an output F ``(B, K, *spatial)``: for identity links the sum of the weights."""
        if self.is_linear:
            weights = [term.weights.expand_as(output) for term in self.terms]
            return torch.stack(weights).sum(dim=0) if len(weights) > 1 else weights[0]
        with torch.enable_grad():
            leaf = output.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(self.score(leaf).sum(), leaf)
        return gradient

    def rows(self, indices: list[int]) -> WeightField:
        """The field for a batch of these images, which may be repeated."""
        is_single = len(set(indices)) == 1
        pick = slice(indices[0], indices[0] + 1) if is_single else indices
        return replace(
            self,
            terms=tuple(
                replace(term, weights=term.weights[pick]) if len(term.weights) > 1 else term
                for term in self.terms
            ),
            offset=self.offset[pick].expand(len(indices)) if is_single else self.offset[pick],
            in_words=tuple(self.in_words[index] for index in indices),
            labels=tuple(self.labels[index] for index in indices) if self.labels else (),
        )

    def to(self, dtype: torch.dtype) -> WeightField:
        """The field with weights of another floating-point type."""
        terms = tuple(replace(term, weights=term.weights.to(dtype)) for term in self.terms)
        return replace(self, terms=terms)

    def minus(self, other: WeightField, words: tuple[str, ...]) -> WeightField:
        """The difference of two fields on the same output.

        Args:
            other: The field to subtract.
            words: The description of the difference, per image.

        Raises:
            TargetError: If one field is on the output and the other one on a layer.
        """
        if self.layer != other.layer:
            raise TargetError("a contrast needs both targets on the output or on the same layer")
        return replace(
            self,
            terms=(*self.terms, *other.scaled(torch.full_like(other.offset, -1)).terms),
            offset=self.offset - other.offset,
            in_words=words,
            remarks=self.remarks + other.remarks,
        )

    def scaled(self, factors: Tensor) -> WeightField:
        """The field times a factor per image, ``(B,)``."""
        terms = []
        for term in self.terms:
            shape = (-1, *(1,) * (term.weights.ndim - 1))
            terms.append(replace(term, weights=term.weights * factors.view(shape)))
        return replace(self, terms=tuple(terms), offset=self.offset * factors)

    def label_of(self, index: int) -> int | None:
        """The explained class of an image; None for targets that are not about a class."""
        return self.labels[index] if self.labels else None

    def size(self, index: int) -> int:
        """Number of output values of an image with a weight other than 0 after all sums."""
        by_link: dict[tuple[Link, Activation], Tensor] = {}
        for term in self.terms:
            weights = term.weights[index if len(term.weights) > 1 else 0]
            key = (term.link, term.activation)
            by_link[key] = by_link[key] + weights if key in by_link else weights
        return sum(int(torch.count_nonzero(weights)) for weights in by_link.values())


def _accumulator(output: Tensor) -> torch.dtype:
    return torch.float32 if output.device.type == "mps" else torch.float64


def resolve_activation(activation: Activation, classes: int) -> Activation:
    """The activation itself; for ``auto`` and ``none`` by the number of output channels alone."""
    if activation == "auto":
        return "sigmoid" if classes == 1 else "softmax"
    if activation == "none":
        return "sigmoid_inside" if classes == 1 else "softmax_inside"
    return activation


def apply_link(output: Tensor, link: Link, activation: Activation) -> Tensor:
    """The output ``(B, K, *spatial)`` on the scale of a link, of the same shape.

    ``log_odds`` is log(p / (1 - p)): the logit under sigmoid, the logit minus the log-sum-exp of
    the other classes under softmax. ``square`` is the square, in the precision of sums.
    """
    if link == "square":
        return output.to(_accumulator(output)).square()
    activation = resolve_activation(activation, output.shape[1])
    if link == "identity":
        return output
    if link == "probability":
        return probabilities(output, activation)
    if activation in INSIDE:
        return torch.logit(output, eps=1e-7)
    if activation == "sigmoid":
        return output
    return output - _logsumexp_of_others(output)


def lies_in_unit_range(output: Tensor, tolerance: float = HALF) -> bool:
    """Whether every value could be a probability."""
    return bool(output.amin() >= -tolerance) and bool(output.amax() <= 1 + tolerance)


def probabilities(output: Tensor, activation: Activation) -> Tensor:
    """Class probabilities, of the shape of the output."""
    activation = resolve_activation(activation, output.shape[1])
    if activation in INSIDE:
        return output
    return functional.softmax(output, dim=1) if activation == "softmax" else torch.sigmoid(output)


def predicted_mask(output: Tensor, label: int, activation: Activation, threshold: float) -> Tensor:
    """Where a class is predicted, ``(B, *spatial)`` boolean.

    One channel has class 1 above the probability threshold and class 0 below. Under softmax the
    class with the largest score is predicted; under sigmoid each class above the threshold.
    """
    classes = output.shape[1]
    if classes == 1:
        above = probabilities(output, activation)[:, 0] > threshold
        return above if label == 1 else ~above
    if resolve_activation(activation, classes) in SEPARATE:
        return probabilities(output, activation)[:, label] > threshold
    return _has_largest_score(output, label)


def _has_largest_score(output: Tensor, label: int) -> Tensor:
    """``output.argmax(dim=1) == label``, which over strided channels takes ten times as long.

    Of equal scores the first counts, as with argmax.
    """
    score = output[:, label]
    is_largest = torch.ones_like(score, dtype=torch.bool)
    if label > 0:
        is_largest &= score > output[:, :label].amax(dim=1)
    if label < output.shape[1] - 1:
        is_largest &= score >= output[:, label + 1 :].amax(dim=1)
    return is_largest


def _logsumexp_of_others(output: Tensor) -> Tensor:
    classes = output.shape[1]
    others = [[k for k in range(classes) if k != label] for label in range(classes)]
    return torch.stack([torch.logsumexp(output[:, rest], dim=1) for rest in others], dim=1)
