"""Non-negative matrix factorization: activations as sums of parts, none of them negative."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from voxplain.concepts.non_negative import improved
from voxplain.engine.randomness import generator


@dataclass(frozen=True, eq=False)
class Factorization:
    """X = S H.

    Attributes:
        shares: S, ``(N, r)``: how much of each part there is.
        parts: H, ``(r, K)`` of length 1, the part of the largest energy first.
        explained: 1 - |X - S H|² / |X|².
    """

    shares: Tensor
    parts: Tensor
    explained: float


def factorize(
    values: Tensor,
    count: int,
    key: tuple[object, ...],
    *,
    starts: int = 3,
    rounds: int = 300,
    tolerance: float = 1e-5,
) -> Factorization:
    """The best of some factorizations from random starts, by hierarchical least squares.

    Paper: Cichocki and Phan, Fast local algorithms for large scale nonnegative matrix and tensor
    factorizations, 2009.

    Args:
        values: ``(N, K)``, none negative.
        count: Number of parts.
        key: What the starts depend on.
        starts: How many.
        rounds: Of updates, at the most.
        tolerance: The change of the explained share in ten rounds below which an update ends.
    """
    found = (
        _from(values, _start(values, count, (*key, start)), rounds, tolerance)
        for start in range(starts)
    )
    return max(found, key=lambda each: each.explained)


def _start(values: Tensor, count: int, key: tuple[object, ...]) -> Tensor:
    """Vectors of the data, far from each other: each with a chance of its squared distance."""
    source = generator(*key)
    residual = values.clone()
    picks = []
    for _ in range(count):
        energy = residual.square().sum(dim=1)
        weights = energy if float(energy.sum()) > 0 else torch.ones_like(energy)
        pick = int(torch.searchsorted(weights.double().cumsum(0), _uniform(weights, source)))
        vector = values[min(pick, len(values) - 1)]
        picks.append(vector)
        unit = vector / vector.norm().clamp(min=torch.finfo(vector.dtype).tiny)
        residual = residual - (residual @ unit)[:, None] * unit
    return torch.stack(picks).clamp(min=1e-6 * float(values.mean()))


def _uniform(weights: Tensor, source: torch.Generator) -> Tensor:
    return torch.rand((), generator=source, dtype=torch.float64) * weights.double().sum()


def _from(values: Tensor, parts: Tensor, rounds: int, tolerance: float) -> Factorization:
    total = float(values.square().sum())
    shares = (values @ torch.linalg.pinv(parts)).clamp(min=0)
    last = -float("inf")
    for number in range(rounds):
        shares = improved(shares, values @ parts.T, parts @ parts.T)
        parts = improved(parts.T, values.T @ shares, shares.T @ shares).T
        if number % 10 == 9:
            explained = 1 - float((values - shares @ parts).square().sum()) / max(total, 1e-30)
            if explained - last < tolerance:
                break
            last = explained
    lengths = parts.norm(dim=1).clamp(min=torch.finfo(parts.dtype).tiny)
    shares, parts = shares * lengths, parts / lengths[:, None]
    explained = 1 - float((values - shares @ parts).square().sum()) / max(total, 1e-30)
    order = shares.square().sum(dim=0).argsort(descending=True, stable=True)
    return Factorization(shares[:, order], parts[order], explained)
