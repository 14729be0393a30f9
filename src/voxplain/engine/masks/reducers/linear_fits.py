"""Weighted linear fits in float64: least squares, ridge and lasso, with an intercept."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_MAX_SWEEPS = 20_000
_CONVERGED = 1e-12
"""Change of the fitted values, relative to their spread, at which the lasso has converged."""


@dataclass(frozen=True, eq=False)
class LinearFit:
    """intercept + <coefficients, z>.

    Attributes:
        coefficients: ``(M,)`` float64.
        intercept: Value at z = 0.
        r2: Fraction of the weighted variance that is explained; None if there is no variance.
    """

    coefficients: Tensor
    intercept: float
    r2: float | None


def ridge(rows: Tensor, values: Tensor, weights: Tensor, penalty: float) -> LinearFit:
    """The minimum of sum w (y - a - <b, z>)^2 + penalty sum b^2, of least norm if not unique.

    Args:
        rows: z, ``(n, M)``.
        values: y, ``(n,)``.
        weights: w, ``(n,)``, not negative.
        penalty: Of the coefficients, not of the intercept.
    """
    centered, around, scaled = _centered(rows, values, weights)
    if penalty > 0:
        gram = (centered * scaled[:, None]).T @ centered
        gram.diagonal().add_(penalty)
        moments = centered.T @ (scaled * around)
        coefficients = torch.linalg.solve(gram, moments)
    else:
        coefficients, _ = least_squares(centered, around, scaled)
    return _fit(coefficients, rows, values, weights)


def lasso(rows: Tensor, values: Tensor, weights: Tensor, penalty: float) -> LinearFit:
    """The minimum of 1/(2n) sum w (y - a - <b, z>)^2 + penalty sum abs(b), weights scaled to sum n.

    Coordinate descent on the moments, so the cost of a sweep is M^2 for any number of rows.

    Args:
        rows: z, ``(n, M)``.
        values: y, ``(n,)``.
        weights: w, ``(n,)``, not negative.
        penalty: In the units of y.
    """
    shares = weights.double() / weights.double().sum()
    centered, around, _ = _centered(rows, values, weights)
    gram = ((centered * shares[:, None]).T @ centered).numpy()
    moments = (centered.T @ (shares * around)).numpy()
    spread = math.sqrt(float((shares * around**2).sum()))
    tolerance = _CONVERGED * spread
    coefficients = torch.from_numpy(_coordinate_descent(gram, moments, penalty, tolerance))
    return _fit(coefficients, rows, values, weights)


def least_squares(rows: Tensor, values: Tensor, weights: Tensor) -> tuple[Tensor, int]:
    """The minimum of sum w (y - <b, z>)^2 of least norm, ``(M,)``, and the rank."""
    roots = weights.double().sqrt()
    targets = (roots * values.double())[:, None]
    result = torch.linalg.lstsq(roots[:, None] * rows.double(), targets, driver="gelsd")
    return result.solution[:, 0], int(result.rank)


def explained(values: Tensor, fitted: Tensor, weights: Tensor) -> float | None:
    """Weighted R^2; None if the values do not vary."""
    mean = (weights * values).sum() / weights.sum()
    spread = float((weights * (values - mean) ** 2).sum())
    if spread <= 1e-24 * float((weights * values**2).sum()) or spread == 0:
        return None
    return 1 - float((weights * (values - fitted) ** 2).sum()) / spread


def _centered(rows: Tensor, values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows and values minus their weighted means, which removes the intercept; and the weights."""
    weights, rows, values = weights.double(), rows.double(), values.double()
    total = weights.sum()
    mean_row = (weights[:, None] * rows).sum(dim=0) / total
    mean = (weights * values).sum() / total
    return rows - mean_row, values - mean, weights


def _fit(coefficients: Tensor, rows: Tensor, values: Tensor, weights: Tensor) -> LinearFit:
    weights = weights.double()
    linear = rows.double() @ coefficients
    intercept = float((weights * (values - linear)).sum() / weights.sum())
    return LinearFit(coefficients, intercept, explained(values, linear + intercept, weights))


def _coordinate_descent(
    gram: NDArray[np.float64], moments: NDArray[np.float64], penalty: float, tolerance: float
) -> NDArray[np.float64]:
    """The minimum of b' G b / 2 - <c, b> + penalty sum abs(b)."""
    coefficients = np.zeros_like(moments)
    gradient = moments.copy()  # c - G b
    active = np.flatnonzero(gram.diagonal() > 0)
    for _ in range(_MAX_SWEEPS):
        largest = 0.0
        for j in active:
            unpenalized = gradient[j] + gram[j, j] * coefficients[j]
            shrunk = math.copysign(max(abs(unpenalized) - penalty, 0.0), unpenalized) / gram[j, j]
            step = shrunk - coefficients[j]
            if step:
                gradient -= gram[j] * step
                coefficients[j] = shrunk
                largest = max(largest, abs(step) * math.sqrt(gram[j, j]))
        if largest <= tolerance:
            break
    return coefficients
