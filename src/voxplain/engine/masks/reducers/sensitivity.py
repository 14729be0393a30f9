"""Reducers that ask how much of the variation of the score goes with a region."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from voxplain.engine.masks.masks import Masks
from voxplain.engine.masks.reducers.base import MaskReducer, Reduction, by_region
from voxplain.engine.masks.reducers.surrogates import over_regions


@dataclass(frozen=True)
class VarianceShare(MaskReducer):
    """Sobol indices of the fades of a pick-freeze design, by Jansen's estimators.

    Total index: E[(S(A) - S(A with column i of B))^2] / (2 Var S); first-order index:
    1 - E[(S(B) - S(A with column i of B))^2] / (2 Var S).
    """

    def reduce(self, masks: Masks, scores: Tensor, whole: float) -> Reduction:
        """The total index of every region, and the first-order one beside it."""
        coalitions = over_regions(masks)
        count = coalitions.regions.count
        samples = len(scores) // (count + 2)
        first, second = scores[:samples], scores[samples : 2 * samples]
        mixed = scores[2 * samples :].view(count, samples)
        variance = scores[: 2 * samples].var(correction=0)
        if not variance > 0:
            nothing = torch.zeros(count, dtype=torch.float64)
            return by_region(coalitions, nothing, findings={"variance": 0.0})
        total = (first - mixed).square().mean(dim=1) / (2 * variance)
        alone = 1 - (second - mixed).square().mean(dim=1) / (2 * variance)
        findings = {"variance": float(variance), "samples": samples}
        return by_region(coalitions, total, findings=findings, beside={"first_order": alone})


@dataclass(frozen=True)
class Dependence(MaskReducer):
    """HSIC between whether a region is kept and the score.

    Masks are compared by equality, scores by a Gaussian whose bandwidth is the median distance of
    two different scores (Gretton et al., 2005, biased estimator tr(K H L H) / n^2).
    """

    def reduce(self, masks: Masks, scores: Tensor, whole: float) -> Reduction:
        """HSIC of every region; beside it what a region without any influence would get."""
        coalitions = over_regions(masks)
        kept = coalitions.design.double()
        gram, bandwidth = centered_gram(scores)
        # With k(z, z') = z z' + (1 - z)(1 - z') and rows of L that sum to 0, tr(K L) = 2 z' L z.
        values = 2 * (kept * (gram @ kept)).sum(dim=0).clamp_min(0) / len(kept) ** 2
        # The mean over all ways to shuffle the scores: tr(HKH) tr(HLH) / (n - 1).
        spread = 2 * len(kept) * kept.var(dim=0, correction=0)
        chance = spread * gram.trace() / max(1, len(kept) - 1) / len(kept) ** 2
        findings = {
            "kernel_of_masks": "equality",
            "kernel_of_scores": "gaussian",
            "bandwidth": bandwidth,
            "samples": len(kept),
        }
        return by_region(coalitions, values, findings=findings, beside={"by_chance": chance})


def centered_gram(scores: Tensor) -> tuple[Tensor, float]:
    """H L H of a Gaussian kernel, ``(n, n)``, and its bandwidth: the median distance."""
    distances = (scores[:, None] - scores[None, :]).abs()
    different = distances[distances > 0]
    bandwidth = float(different.median()) if len(different) else 1.0
    gram = torch.exp(-(distances**2) / (2 * bandwidth**2))
    rows = gram.mean(dim=0, keepdim=True)
    return gram - rows - rows.T + rows.mean(), bandwidth


__all__ = ["Dependence", "VarianceShare", "centered_gram"]
