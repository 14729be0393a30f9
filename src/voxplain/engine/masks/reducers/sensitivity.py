"""Reducers of sensitivity analysis: Sobol indices and HSIC of regions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from voxplain.engine.masks.masks import Masks
from voxplain.engine.masks.reducers.base import MaskReducer, Reduction, by_region
from voxplain.engine.masks.reducers.surrogates import require_coalitions


@dataclass(frozen=True)
class VarianceShare(MaskReducer):
    """Sobol indices of regions from a pick-freeze design, by Jansen's estimators.

    Total index: E[(S(A) - S(A with column i of B))^2] / (2 Var S); first-order index:
    1 - E[(S(B) - S(A with column i of B))^2] / (2 Var S).
    """

    def reduce(self, masks: Masks, scores: Tensor, full_score: float) -> Reduction:
        """The total index of every region; the findings list the first-order index."""
        coalitions = require_coalitions(masks)
        count = coalitions.regions.count
        samples = len(scores) // (count + 2)
        first, second = scores[:samples], scores[samples : 2 * samples]
        mixed = scores[2 * samples :].view(count, samples)
        variance = scores[: 2 * samples].var(correction=0)
        if not variance > 0:
            zeros = torch.zeros(count, dtype=torch.float64)
            return by_region(coalitions, zeros, findings={"variance": 0.0})
        total = (first - mixed).square().mean(dim=1) / (2 * variance)
        first_order = 1 - (second - mixed).square().mean(dim=1) / (2 * variance)
        findings = {"variance": float(variance), "samples": samples}
        columns = {"first_order": first_order}
        return by_region(coalitions, total, findings=findings, columns=columns)


@dataclass(frozen=True)
class Dependence(MaskReducer):
    """HSIC between the state of a region (kept or removed) and the score.

    The kernel of the states is equality; the kernel of the scores is a Gaussian whose bandwidth is
    the median distance of two different scores (Gretton et al., 2005, biased estimator
    tr(K H L H) / n^2).
    """

    def reduce(self, masks: Masks, scores: Tensor, full_score: float) -> Reduction:
        """HSIC of every region; the findings list its expectation under independence."""
        coalitions = require_coalitions(masks)
        kept = coalitions.design.double()
        gram, bandwidth = centered_gram(scores)
        # With k(z, z') = z z' + (1 - z)(1 - z') and rows of L that sum to 0, tr(K L) = 2 z' L z.
        values = 2 * (kept * (gram @ kept)).sum(dim=0).clamp_min(0) / len(kept) ** 2
        # The mean over all permutations of the scores: tr(HKH) tr(HLH) / (n - 1).
        trace = 2 * len(kept) * kept.var(dim=0, correction=0)
        by_chance = trace * gram.trace() / max(1, len(kept) - 1) / len(kept) ** 2
        findings = {
            "kernel_of_masks": "equality",
            "kernel_of_scores": "gaussian",
            "bandwidth": bandwidth,
            "samples": len(kept),
        }
        return by_region(coalitions, values, findings=findings, columns={"by_chance": by_chance})


def centered_gram(scores: Tensor) -> tuple[Tensor, float]:
    """The centered Gram matrix H L H of a Gaussian kernel, ``(n, n)``, and its bandwidth."""
    distances = (scores[:, None] - scores[None, :]).abs()
    different = distances[distances > 0]
    bandwidth = float(different.median()) if len(different) else 1.0
    gram = torch.exp(-(distances**2) / (2 * bandwidth**2))
    rows = gram.mean(dim=0, keepdim=True)
    return gram - rows - rows.T + rows.mean(), bandwidth
