"""Concept activation vectors of least squares, each beside those of random concepts.

The direction of a linear least-squares classifier of concept against the rest is S^-1 (m1 - m),
with the covariance S and the mean m of all activations and the mean m1 of those in the concept.
Random concepts share S and m and differ in m1, so that hundreds of them cost a matrix product.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from voxplain.engine.randomness import generator

_POSITIVES = 1024
_AT_ONCE = 16


@dataclass(frozen=True, eq=False)
class ActivationVectors:
    """The direction of a concept in a layer, and those of random concepts.

    Attributes:
        vectors: ``(1 + R, K)`` of length 1, from the rest toward the concept; the concept first.
        threshold: Of ``vectors[0] . a``, half way between the means of concept and rest.
    """

    vectors: Tensor
    threshold: float


@dataclass(eq=False)
class LayerMoments:
    """Mean and covariance of the activations of a layer; every case counts the same.

    Attributes:
        count: Cases that were seen.
    """

    count: int = 0
    _sum: Tensor = field(default_factory=lambda: torch.zeros(()))
    _products: Tensor = field(default_factory=lambda: torch.zeros(()))

    def add(self, vectors: Tensor) -> None:
        """Takes in the vectors ``(N, K)`` of a case."""
        vectors = vectors.double()
        self.count += 1
        self._sum = self._sum + vectors.mean(dim=0)
        self._products = self._products + vectors.T @ vectors / len(vectors)

    @property
    def mean(self) -> Tensor:
        """``(K,)``."""
        return self._sum / self.count

    def covariance(self, ridge: float) -> Tensor:
        """``(K, K)``, with a share of the mean variance added to its diagonal."""
        mean = self.mean
        own = self._products / self.count - mean[:, None] * mean
        floor = max(float(own.diagonal().mean()), torch.finfo(own.dtype).tiny)
        return own + ridge * floor * torch.eye(len(own), dtype=own.dtype)


class PlacedConcept:
    """Sums of activations where a concept is, and where it is after it was moved around the grid.

    Args:
        moves: How many random concepts there are.
        key: What the draws depend on, beside the case.
    """

    def __init__(self, moves: int, key: tuple[object, ...]) -> None:
        self._moves, self._key = moves, key
        self._sums: Tensor | None = None
        self._shares = torch.zeros(moves + 1, dtype=torch.float64)
        self._mean_sum, self._count = torch.zeros(()), 0

    def add(self, case: str, values: Tensor, mask: Tensor, inside: Tensor, mean: Tensor) -> None:
        """Takes in a case.

        Args:
            case: Its id.
            values: ``(K, windows, *cells)``.
            mask: Cells in the concept, ``(windows, *cells)`` of bool.
            inside: Cells that count.
            mean: ``(K,)`` of the cells that count.
        """
        source = generator(*self._key, case)
        cells, total = (mask & inside).nonzero(), int(inside.sum())
        self._mean_sum, self._count = self._mean_sum + mean.double(), self._count + 1
        moves = self._drawn(mask.shape[1:], source)
        if not len(cells):
            return
        kept = cells[torch.randperm(len(cells), generator=source)[:_POSITIVES]]
        sums, counts = self._moved_sums(values, inside, kept, moves)
        scale = len(cells) / len(kept) / total
        self._sums = scale * sums if self._sums is None else self._sums + scale * sums
        self._shares += scale * counts

    def _drawn(self, cells: torch.Size, source: torch.Generator) -> Tensor:
        """Shifts ``(1 + R, axes)`` in cells, the first of them none."""
        draws = torch.rand(self._moves, 3, generator=source)
        shifts, used = torch.zeros(self._moves + 1, len(cells), dtype=torch.long), 0
        for axis, size in enumerate(cells):
            if size > 1:
                shifts[1:, axis] = (draws[:, used] * size).long()
                used += 1
        return shifts

    def _moved_sums(
        self, values: Tensor, inside: Tensor, cells: Tensor, moves: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Sums ``(1 + R, K)`` over the moved cells that count, and how many these are."""
        shape, flat, allowed = inside.shape, values.flatten(1), inside.flatten()
        steps = torch.tensor([math.prod(shape[axis + 1 :]) for axis in range(len(shape))])
        sums, counts = [], []
        for some in torch.split(moves, _AT_ONCE):
            places = cells[:, 1:] + some[:, None]
            places = torch.remainder(places, torch.tensor(shape[1:]))
            index = (places * steps[1:]).sum(dim=2) + cells[:, 0] * steps[0]
            counted = allowed[index]
            taken = flat[:, index].double() * counted
            sums.append(taken.sum(dim=2).T)
            counts.append(counted.sum(dim=1))
        return torch.cat(sums), torch.cat(counts).double()

    def vectors(self, moments: LayerMoments, ridge: float) -> ActivationVectors | None:
        """The directions; None where the concept is nowhere or everywhere."""
        if self._sums is None or not 0 < float(self._shares[0]) < self._count:
            return None
        mean = self._mean_sum / self._count
        shares = self._shares.clamp(min=torch.finfo(torch.float64).tiny)
        means = self._sums / shares[:, None]
        return _solved(moments, ridge, mean, means, self._shares / self._count)


def image_concept_vectors(
    moments: LayerMoments,
    ridge: float,
    vectors: Tensor,
    holds: Tensor,
    moves: int,
    key: tuple[object, ...],
) -> ActivationVectors | None:
    """Directions of a concept of whole images, and of its values dealt to other cases.

    Args:
        moments: Of the vectors of all cases.
        ridge: Added to the covariance.
        vectors: ``(cases, K)``, one per image.
        holds: ``(cases,)`` of bool.
        moves: How many random concepts.
        key: What the draws depend on.

    Returns:
        None where the concept holds for no case or for all.
    """
    if not 0 < int(holds.sum()) < len(holds):
        return None
    source = generator(*key)
    order = [torch.arange(len(holds))]
    order += [torch.randperm(len(holds), generator=source) for _ in range(moves)]
    dealt = holds[torch.stack(order)].double()
    values = vectors.double()
    means = dealt @ values / dealt.sum(dim=1, keepdim=True)
    return _solved(moments, ridge, values.mean(dim=0), means, dealt.mean(dim=1))


def _solved(
    moments: LayerMoments, ridge: float, mean: Tensor, means: Tensor, shares: Tensor
) -> ActivationVectors:
    """S^-1 (m1 - m) for every m1 of ``(1 + R, K)``."""
    differences = torch.where(shares[:, None] > 0, means - mean, 0)
    found = torch.cholesky_solve(differences.T, torch.linalg.cholesky(moments.covariance(ridge)))
    vectors = functional.normalize(found.T, dim=1)
    # m0 = (m - share m1) / (1 - share), and the middle of m0 and m1:
    share = float(shares[0])
    rest = (mean - share * means[0]) / (1 - share)
    return ActivationVectors(vectors, float(vectors[0] @ (means[0] + rest) / 2))
