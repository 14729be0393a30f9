"""A piecewise linear surrogate: additive over regions, plus a small perceptron of the residual."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from voxplain.engine.masks.masks import Masks
from voxplain.engine.masks.reducers.base import MaskReducer, Reduction, by_region
from voxplain.engine.masks.reducers.linear_fits import explained, ridge
from voxplain.engine.masks.reducers.surrogates import require_coalitions

_HELD_OUT = 4
"""One of so many coalitions is held out."""


@dataclass(frozen=True)
class PiecewiseLinear(MaskReducer):
    """S ~ c + sum_i f_i(z_i) + perceptron(z), each f_i linear between levels.

    Attributes:
        levels: Number of levels between which the f_i are linear, 0 and 1 included.
        penalty: Of the ridge on the heights of the pieces.
    """

    levels: int
    penalty: float

    def reduce(self, masks: Masks, scores: Tensor, full_score: float) -> Reduction:
        """f_i(1) - f_i(0): the effect of keeping each region, whatever the others."""
        coalitions = require_coalitions(masks)
        design = coalitions.design.double()
        pieces = self.pieces(design)
        held_out = torch.arange(len(design)) % _HELD_OUT == _HELD_OUT - 1
        weights = torch.ones(len(design), dtype=torch.float64)
        fit = ridge(pieces[~held_out], scores[~held_out], weights[~held_out], self.penalty)
        additive = pieces @ fit.coefficients + fit.intercept
        residual = (scores - additive)[~held_out]
        predicted = fit_perceptron(design[~held_out], residual)(design[held_out])
        both = additive[held_out] + predicted
        heights = fit.coefficients.view(design.shape[1], self.levels - 1)
        held_scores, held_weights = scores[held_out], weights[held_out]
        findings = {
            "r2_held_out": explained(held_scores, both, held_weights),
            "r2_held_out_of_additive_part": explained(
                held_scores, additive[held_out], held_weights
            ),
            "coalitions": len(design),
            "held_out": int(held_out.sum()),
        }
        columns = {"bend": _bends(heights), "curve": _curves(heights)}
        return by_region(coalitions, heights.sum(dim=1), findings=findings, columns=columns)

    def pieces(self, design: Tensor) -> Tensor:
        """Position of each region within each piece, ``(n, M (levels - 1))`` in [0, 1]."""
        steps = torch.arange(self.levels - 1)
        positions = design[:, :, None] * (self.levels - 1) - steps
        return positions.clamp(0, 1).flatten(1)


def _curves(heights: Tensor) -> Tensor:
    """f_i at every level, ``(M, levels)``; 0 where the region is removed."""
    return torch.cat([torch.zeros_like(heights[:, :1]), heights.cumsum(dim=1)], dim=1)


def _bends(heights: Tensor) -> Tensor:
    """Largest deviation of f_i from the straight line between its ends, ``(M,)``."""
    count = heights.shape[1]
    line = torch.arange(1, count + 1) / count
    deviations = heights.cumsum(dim=1) - heights.sum(dim=1, keepdim=True) * line
    return deviations.abs().amax(dim=1)


_HIDDEN = 16
_EPOCHS = 400
_LEARNING_RATE = 1e-2
_WEIGHT_DECAY = 1e-3
_CHECK_EVERY = 10


class Perceptron(nn.Module):
    """<u, tanh(V z + a)> + c in float64; V is random and always the same, all others start at 0."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        source = torch.Generator().manual_seed(0)
        first = torch.randn(_HIDDEN, inputs, generator=source, dtype=torch.float64)
        self.first = nn.Parameter(first * (3 / inputs) ** 0.5)
        self.first_bias = nn.Parameter(torch.zeros(_HIDDEN, dtype=torch.float64))
        self.last = nn.Parameter(torch.zeros(_HIDDEN, dtype=torch.float64))
        self.last_bias = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, rows: Tensor) -> Tensor:
        """Predictions ``(n,)`` for inputs ``(n, M)``."""
        return torch.tanh(rows @ self.first.T + self.first_bias) @ self.last + self.last_bias


def fit_perceptron(rows: Tensor, values: Tensor) -> Callable[[Tensor], Tensor]:
    """A perceptron trained on full batches, as a function from inputs to predictions.

    Every fourth row is used for early stopping and not for training. If no step reduces the error
    on these rows, the perceptron stays zero.

    Args:
        rows: Inputs ``(n, M)``.
        values: Targets ``(n,)``.
    """
    scale, center = float(values.std(correction=0)) or 1.0, rows.double().mean(dim=0)
    with torch.inference_mode(False), torch.enable_grad():
        inputs, targets = rows.double().clone() - center, values.double().clone() / scale
        perceptron = _trained(inputs, targets)

    def predict(others: Tensor) -> Tensor:
        with torch.no_grad():
            predictions: Tensor = perceptron(others.double() - center) * scale
        return predictions

    return predict


def _trained(rows: Tensor, values: Tensor) -> Perceptron:
    validation = torch.arange(len(rows)) % 4 == 3
    perceptron = Perceptron(rows.shape[1])
    best, least = copy.deepcopy(perceptron.state_dict()), float("inf")
    optimizer = torch.optim.Adam(
        perceptron.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY
    )
    for epoch in range(_EPOCHS):
        if epoch % _CHECK_EVERY == 0:
            with torch.no_grad():
                error = float(_error(perceptron, rows[validation], values[validation]))
            if error < least:
                best, least = copy.deepcopy(perceptron.state_dict()), error
        optimizer.zero_grad()
        _error(perceptron, rows[~validation], values[~validation]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    perceptron.load_state_dict(best)
    return perceptron


def _error(perceptron: Perceptron, rows: Tensor, values: Tensor) -> Tensor:
    squared: Tensor = (perceptron(rows) - values).square()
    return squared.mean()
