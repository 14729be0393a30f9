"""Whether scores along a direction differ from those along directions that mean nothing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class DirectionTest:
    """Scores of a set of cases along one direction, against random directions.

    Attributes:
        share_positive: Share of the cases whose score grows along the direction.
        mean: Mean directional derivative, in score per unit of activation.
        random_share: 2.5 % and 97.5 % quantiles of the share along random directions.
        random_mean: The same of the mean.
        p_share: Two-sided p value of the share.
        p_mean: Two-sided p value of the mean.
    """

    share_positive: float
    mean: float
    random_share: tuple[float, float]
    random_mean: tuple[float, float]
    p_share: float
    p_mean: float


def compare_directions(gradients: Tensor, vectors: Tensor) -> DirectionTest:
    """Compares directional derivatives along a direction with those along random directions.

    The p value is 2 min(P(s_r >= s), P(s_r <= s)) over the random directions, the direction itself
    among them, so that it holds its level for any number of cases. A t test over repeated
    directions, as published, does not: more repeats make any difference significant.

    Args:
        gradients: dS/dA ``(cases, K)``, summed over the cells that move.
        vectors: ``(1 + R, K)``, the direction first; a random direction of length 0 does not count.

    Returns:
        NaN everywhere where no case has a gradient or the direction has no length.
    """
    derivatives = gradients.double() @ vectors.double().T
    lengths = vectors.double().norm(dim=1)
    if not len(gradients) or not bool(gradients.any()) or not float(lengths[0]):
        nan = float("nan")
        return DirectionTest(nan, nan, (nan, nan), (nan, nan), nan, nan)
    derivatives = derivatives[:, lengths > 0]
    shares, means = (derivatives > 0).double().mean(dim=0), derivatives.mean(dim=0)
    return DirectionTest(
        float(shares[0]),
        float(means[0]),
        _central(shares[1:]),
        _central(means[1:]),
        _two_sided(shares),
        _two_sided(means),
    )


def _central(values: Tensor) -> tuple[float, float]:
    if not len(values):
        return float("nan"), float("nan")
    low, high = torch.quantile(values, torch.tensor([0.025, 0.975], dtype=values.dtype))
    return float(low), float(high)


def _two_sided(values: Tensor) -> float:
    """The p value of the first of some values that would be exchangeable if it meant nothing."""
    slack = 1e-12 * float(values.abs().max())
    above = float((values >= values[0] - slack).double().mean())
    below = float((values <= values[0] + slack).double().mean())
    return min(1.0, 2 * min(above, below))
