"""A surrogate that bends: additive and piecewise linear in every region, with a small network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from voxplain.engine.masks.masks import Masks
from voxplain.engine.masks.reducers.base import MaskReducer, Reduction, by_region
from voxplain.engine.masks.reducers.linear_fits import explained, ridge
from voxplain.engine.masks.reducers.perceptron import Perceptron
from voxplain.engine.masks.reducers.surrogates import over_regions

_HELD_OUT = 4
"""Every so many coalitions one is held out."""


@dataclass(frozen=True)
class PiecewiseLinear(MaskReducer):
    """S ~ c + sum_i f_i(z_i) + perceptron(z), each f_i linear between levels.

    Attributes:
        levels: Where the pieces meet, 0 and 1 included.
        penalty: Of the ridge on the heights of the pieces.
    """

    levels: int
    penalty: float

    def reduce(self, masks: Masks, scores: Tensor, whole: float) -> Reduction:
        """f_i(1) - f_i(0): what bringing back each region does, whatever the others do."""
        coalitions = over_regions(masks)
        design = coalitions.design.double()
        pieces = self.pieces(design)
        held = torch.arange(len(design)) % _HELD_OUT == _HELD_OUT - 1
        weights = torch.ones(len(design), dtype=torch.float64)
        fit = ridge(pieces[~held], scores[~held], weights[~held], self.penalty)
        additive = pieces @ fit.coefficients + fit.intercept
        left = (scores - additive)[~held]
        both = additive[held] + Perceptron(design[~held], left)(design[held])
        heights = fit.coefficients.view(design.shape[1], self.levels - 1)
        findings = {
            "r2_held_out": explained(scores[held], both, weights[held]),
            "r2_held_out_of_additive_part": explained(scores[held], additive[held], weights[held]),
            "coalitions": len(design),
            "held_out": int(held.sum()),
        }
        bends = _bends(heights)
        return by_region(coalitions, heights.sum(dim=1), None, None, findings, {"bend": bends})

    def pieces(self, design: Tensor) -> Tensor:
        """How far each region is through each piece, ``(n, M (levels - 1))`` in [0, 1]."""
        steps = torch.arange(self.levels - 1)
        through = design[:, :, None] * (self.levels - 1) - steps
        return through.clamp(0, 1).flatten(1)


def _bends(heights: Tensor) -> Tensor:
    """Largest departure of f_i from the straight line between its ends, ``(M,)``."""
    count = heights.shape[1]
    line = torch.arange(1, count + 1) / count
    away = heights.cumsum(dim=1) - heights.sum(dim=1, keepdim=True) * line
    return away.abs().amax(dim=1)


__all__ = ["PiecewiseLinear"]
