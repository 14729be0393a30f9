"""A weighted logistic regression on activations: the direction in which a concept lies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize, special
from torch import Tensor

Array = NDArray[np.float64]
_CONSTANT = 1e-6
"""The spread of a channel, relative to its largest value, below which it is constant."""


@dataclass(frozen=True, eq=False)
class LogisticFit:
    """sigmoid(w a + b).

    Attributes:
        weights: w, ``(K,)`` in float32.
        intercept: b.
        importance: ``(K,)`` |w| times the standard deviation of the channel.
    """

    weights: Tensor
    intercept: float
    importance: Tensor


def fit_logistic(
    values: Tensor,
    labels: Tensor,
    weights: Tensor,
    *,
    ridge: float = 1e-4,
    intercept: bool = True,
) -> LogisticFit:
    """Minimizes the balanced cross-entropy of Net2Vec; convex, so that the start plays no part.

    -mean[alpha L log M + (1 - alpha)(1 - L) log(1 - M)] + ridge/2 |w|^2 with M = sigmoid(w a + b),
    alpha = 1 - mean of L, on channels divided by their standard deviation.

    Paper: Fong and Vedaldi, Net2Vec, 2018.

    Args:
        values: ``(N, K)``.
        labels: ``(N,)`` in [0, 1].
        weights: ``(N,)`` of the vectors.
        ridge: Keeps the weights finite where the concept can be separated.
        intercept: Whether there is a b; without it, as published, M is 0.5 at a = 0.
    """
    x, share = values.double().numpy(), (weights / weights.sum()).double().numpy()
    truth = labels.double().numpy()
    alpha = 1 - float(share @ truth)
    mean = share @ x if intercept else np.zeros(x.shape[1])
    spread = np.sqrt(share @ (x - share @ x) ** 2)
    scale = np.where(spread > _CONSTANT * np.abs(x).max(axis=0), spread, np.inf)
    scaled = (x - mean) / scale
    cost = (alpha * share * truth, (1 - alpha) * share * (1 - truth))

    def loss(parameters: Array) -> tuple[float, Array]:
        slope, shift = parameters[:-1], parameters[-1] if intercept else 0.0
        score = scaled @ slope + shift
        value = cost[0] @ np.logaddexp(0, -score) + cost[1] @ np.logaddexp(0, score)
        residual = cost[1] * special.expit(score) - cost[0] * special.expit(-score)
        slope_gradient = scaled.T @ residual + ridge * slope
        total = float(value + ridge / 2 * slope @ slope)
        return total, np.append(slope_gradient, residual.sum() if intercept else 0.0)

    start = np.zeros(x.shape[1] + 1)
    options = {"maxiter": 1000, "ftol": 1e-13, "gtol": 1e-8}
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x
    slope = found[:-1] / scale
    return LogisticFit(
        torch.from_numpy(slope).float(),
        float(found[-1] - slope @ mean) if intercept else 0.0,
        torch.from_numpy(np.abs(found[:-1])).float(),
    )
