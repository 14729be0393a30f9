"""The weight field: what a bound target is."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from voxplain.errors import TargetError
from voxplain.targets.links import Activation, Link, apply_link


@dataclass(frozen=True, eq=False)
class Term:
    """One weighted part of a target: sum over classes and positions of W * link(f(x)).

    Attributes:
        weights: ``(B, K, *spatial)``, broadcastable to the output.
        link: The scale on which the output is summed.
        activation: What turns scores into probabilities.
    """

    weights: Tensor
    link: Link = "identity"
    activation: Activation = "auto"

    def score(self, output: Tensor) -> Tensor:
        """The part of S per image ``(B,)``, summed in double precision."""
        linked = output
        if self.link != "identity":
            linked = apply_link(output, self.link, self.activation)
        return (self.weights * linked).flatten(1).sum(dim=1, dtype=_accumulator(output))


@dataclass(frozen=True, eq=False)
class WeightField:
    """S(x) = offset + sum of terms, fixed for every perturbed input.

    Attributes:
        terms: Weighted parts; more than one for a contrast of different links.
        offset: ``(B,)``, what is added to the sum (1 - p of a one-logit network, say).
        layer: The tapped layer that the weights live on; None for the output.
        in_words: One sentence per image.
        remarks: What a reader should know (saturated probability, resized mask).
        labels: Per image the class it is about; empty if it is about none.
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
        """S per image ``(B,)``; differentiable, accumulated in float64 (float32 on MPS)."""
        total = self.offset.to(_accumulator(output))
        for term in self.terms:
            total = total + term.score(output)
        return total

    @property
    def is_linear(self) -> bool:
        """Whether dS/dF does not depend on the output F."""
        return all(term.link == "identity" for term in self.terms)

    def cotangent(self, output: Tensor) -> Tensor:
        """dS/dF at an output ``(B, K, *spatial)``; the sum of the weights for identity links."""
        if self.is_linear:
            weights = [term.weights.expand_as(output) for term in self.terms]
            return torch.stack(weights).sum(dim=0) if len(weights) > 1 else weights[0]
        with torch.enable_grad():
            leaf = output.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(self.score(leaf).sum(), leaf)
        return gradient

    def rows(self, indices: list[int]) -> WeightField:
        """The field for a batch made of these images, in this order; repeats are not copied."""
        single = len(set(indices)) == 1
        pick = slice(indices[0], indices[0] + 1) if single else indices
        return replace(
            self,
            terms=tuple(
                replace(term, weights=term.weights[pick]) if len(term.weights) > 1 else term
                for term in self.terms
            ),
            offset=self.offset[pick].expand(len(indices)) if single else self.offset[pick],
            in_words=tuple(self.in_words[index] for index in indices),
            labels=tuple(self.labels[index] for index in indices) if self.labels else (),
        )

    def to(self, dtype: torch.dtype) -> WeightField:
        """The same field with weights of another type."""
        terms = tuple(replace(term, weights=term.weights.to(dtype)) for term in self.terms)
        return replace(self, terms=terms)

    def minus(self, other: WeightField, words: tuple[str, ...]) -> WeightField:
        """The contrast of two fields on the same output."""
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
        """The field times one factor ``(B,)`` per image."""
        terms = []
        for term in self.terms:
            shape = (-1, *(1,) * (term.weights.ndim - 1))
            terms.append(replace(term, weights=term.weights * factors.view(shape)))
        return replace(self, terms=tuple(terms), offset=self.offset * factors)

    def label_of(self, index: int) -> int | None:
        """The class it is about in one image, if it is about one."""
        return self.labels[index] if self.labels else None

    def size(self, index: int) -> int:
        """Number of output entries with a weight, for one image; what cancels does not count."""
        scales: dict[tuple[Link, Activation], Tensor] = {}
        for term in self.terms:
            row = term.weights[index if len(term.weights) > 1 else 0]
            scale = (term.link, term.activation)
            scales[scale] = scales[scale] + row if scale in scales else row
        return sum(int(torch.count_nonzero(row)) for row in scales.values())


def _accumulator(output: Tensor) -> torch.dtype:
    return torch.float32 if output.device.type == "mps" else torch.float64
