"""Reducers for Shapley values of regions: exact, and sampled by random walks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from voxplain.engine.masks.masks import Masks
from voxplain.engine.masks.reducers.base import MaskReducer, Reduction, by_region
from voxplain.engine.masks.reducers.surrogates import require_coalitions


@dataclass(frozen=True)
class WalkMarginals(MaskReducer):
    """Sampled Shapley values: mean over walks of the gain when a region joins those before it."""

    complete: ClassVar[bool] = True

    def reduce(self, masks: Masks, scores: Tensor, full_score: float) -> Reduction:
        """Values of the regions; the findings list their standard errors."""
        coalitions = require_coalitions(masks)
        gains = marginal_gains(coalitions.design, scores, full_score)
        values, errors = gains.mean(dim=0), standard_errors(gains)
        return by_region(
            coalitions,
            values,
            float(values.sum()),
            float(scores[0]),
            {"walks": len(gains), "largest_standard_error": float(errors.amax())},
            {"standard_error": errors},
        )


@dataclass(frozen=True)
class ExactShapley(MaskReducer):
    """Shapley values from the scores of all coalitions."""

    complete: ClassVar[bool] = True

    def reduce(self, masks: Masks, scores: Tensor, full_score: float) -> Reduction:
        """Values of the regions."""
        coalitions = require_coalitions(masks)
        count = coalitions.regions.count
        game = torch.empty(2**count, dtype=torch.float64)
        game[(coalitions.design.long() << torch.arange(count)).sum(dim=1)] = scores
        game[-1] = full_score
        values = shapley_values(game)
        return by_region(coalitions, values, float(values.sum()), float(game[0]))


def marginal_gains(design: Tensor, scores: Tensor, full_score: float) -> Tensor:
    """Gain of the score when each region joins, per walk, ``(walks, M)`` float64.

    Args:
        design: The empty coalition, then the M - 1 inner coalitions of each walk, ``(n, M)``.
        scores: Of each coalition, ``(n,)``.
        full_score: Of the image, at which every walk ends.
    """
    count = design.shape[1]
    if count == 1:
        return (full_score - scores[:1])[:, None]
    inside = design[1:].view(-1, count - 1, count)
    walks = len(inside)
    empty, full = design[:1].expand(walks, 1, count), torch.ones(walks, 1, count).to(design)
    joined = torch.cat([empty, inside, full], dim=1).diff(dim=1).argmax(dim=2)
    ends = scores[:1].expand(walks, 1), scores.new_full((walks, 1), full_score)
    steps = torch.cat([ends[0], scores[1:].view(walks, -1), ends[1]], dim=1).diff(dim=1)
    return torch.zeros_like(steps).scatter_(1, joined, steps)


def standard_errors(gains: Tensor) -> Tensor:
    """Standard errors of the mean over walks, for pairs of a walk and its reversal, ``(M,)``.

    The two walks of a pair are not independent, so the variance is that of their means; a last
    walk without its reversal has the variance of single walks. 0 if all possible walks were taken.

    Args:
        gains: ``(walks, M)``.
    """
    walks, count = gains.shape
    if walks < 2 or (count <= 20 and walks == math.factorial(count)):
        return torch.zeros_like(gains[0])
    pairs = gains[: walks - walks % 2].view(-1, 2, count).mean(dim=1)
    single = gains.var(dim=0)
    of_pairs = pairs.var(dim=0) if len(pairs) > 1 else single / 2
    variance = 4 * len(pairs) * of_pairs + walks % 2 * single
    return (variance / walks**2).sqrt()


def shapley_values(game: Tensor) -> Tensor:
    """phi_i = sum over S without i of |S|! (M - |S| - 1)! / M! (v(S and i) - v(S)).

    Args:
        game: v of all subsets, ``(2**M,)`` float64: i is in subset r if bit i of r is set.

    Returns:
        ``(M,)`` float64.
    """
    count = len(game).bit_length() - 1
    subsets = torch.arange(len(game))
    members = (subsets[:, None] >> torch.arange(count)) & 1
    sizes = members.sum(dim=1)
    by_size = torch.tensor(
        [1 / (count * math.comb(count - 1, size)) for size in range(count)] + [0.0],
        dtype=torch.float64,
    )
    values = []
    for region in range(count):
        without = subsets[members[:, region] == 0]
        gains = game[without + (1 << region)] - game[without]
        values.append((by_size[sizes[without]] * gains).sum())
    return torch.stack(values)
