"""A regression tree over coalitions, fitted with weights: which few regions decide the score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_LEAST_ROWS = 5
"""Coalitions that a leaf holds at least."""
_NO_GAIN = 1e-12
"""Share of the weighted variance of all coalitions; a split that explains less is none."""


@dataclass(frozen=True, eq=False)
class TreeNode:
    """A part of the coalitions with its mean score, divided by whether a region is kept.

    Attributes:
        mean: Weighted mean of the scores.
        rows: Number of coalitions.
        region: The region that divides them; None for a leaf.
        removed: The part without the region.
        kept: The part with it.
    """

    mean: float
    rows: int
    region: int | None = None
    removed: TreeNode | None = None
    kept: TreeNode | None = None

    def predictions(self, design: Tensor) -> Tensor:
        """The mean of the leaf of each coalition ``(n, M)``, ``(n,)`` float64."""
        if self.region is None or self.removed is None or self.kept is None:
            return torch.full((len(design),), self.mean, dtype=torch.float64)
        inside = design[:, self.region] > 0.5
        return torch.where(inside, self.kept.predictions(design), self.removed.predictions(design))

    def contributions(self, count: int) -> Tensor:
        """How much each region raises the mean on the way to the leaf of the whole image.

        They sum to the prediction for the image minus the mean of all coalitions.

        Args:
            count: Number of regions.
        """
        found = torch.zeros(count, dtype=torch.float64)
        node = self
        while node.region is not None and node.kept is not None:
            found[node.region] += node.kept.mean - node.mean
            node = node.kept
        return found

    def listed(self, names: list[str]) -> dict[str, Any]:
        """The tree as nested mappings, for findings.

        Args:
            names: Of the regions.
        """
        facts: dict[str, Any] = {"mean": self.mean, "coalitions": self.rows}
        if self.region is None or self.removed is None or self.kept is None:
            return facts
        branches = {"kept": self.kept.listed(names), "removed": self.removed.listed(names)}
        return {**facts, "region": names[self.region], **branches}


def regression_tree(design: Tensor, scores: Tensor, weights: Tensor, depth: int) -> TreeNode:
    """The tree whose splits each lower the weighted squared error the most (CART).

    Args:
        design: Coalitions ``(n, M)`` of 0 and 1.
        scores: ``(n,)`` float64.
        weights: ``(n,)`` float64, not negative.
        depth: Splits from the root to a leaf at most.
    """
    mean = float((weights * scores).sum() / weights.sum())
    least = _NO_GAIN * float((weights * (scores - mean).square()).sum())
    return _grown(design.double(), scores, weights, depth, least)


def _grown(design: Tensor, scores: Tensor, weights: Tensor, depth: int, least: float) -> TreeNode:
    total = weights.sum()
    mean = (weights * scores).sum() / total
    leaf = TreeNode(float(mean), len(scores))
    if depth == 0 or len(scores) < 2 * _LEAST_ROWS:
        return leaf
    rows = design.sum(dim=0)
    kept = weights @ design
    moved = (weights * (scores - mean)) @ design  # what both sides deviate by, with opposite sign
    gains = moved.square() * total / (kept * (total - kept))
    enough = (rows >= _LEAST_ROWS) & (len(scores) - rows >= _LEAST_ROWS) & (kept < total)
    gains = gains.where(enough & (kept > 0), 0.0)
    region = int(gains.argmax())
    if not float(gains[region]) > least:
        return leaf
    inside = design[:, region] > 0.5
    parts = [
        _grown(design[part], scores[part], weights[part], depth - 1, least)
        for part in (~inside, inside)
    ]
    return TreeNode(leaf.mean, leaf.rows, region, *parts)
