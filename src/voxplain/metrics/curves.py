"""Curves of a score over a growing share, areas under them, and correlations."""

from __future__ import annotations

import torch
from torch import Tensor

from voxplain.metrics.maps import Undefined

_SMALLEST_SCALE = 0.01
"""How far apart the ends of a curve have to be to serve as its scale, of the larger of them."""


def area(curve: Tensor, x: Tensor | None = None) -> float:
    """Trapezoidal area under a curve; over [0, 1] in equal steps without ``x``."""
    if x is None:
        x = torch.linspace(0, 1, len(curve), dtype=torch.float64)
    return float(torch.trapezoid(curve.double(), x))


def normalized(scores: Tensor, image_score: float, filled_score: float) -> Tensor:
    """Scores on a scale where the image is 1 and the filled image 0.

    Whether there is such a scale depends on the image and the fill alone, so that it exists for all
    maps or for none.

    Raises:
        Undefined: If the two are too close to each other to be a scale.
    """
    largest = max(abs(image_score), abs(filled_score))
    if abs(image_score - filled_score) <= _SMALLEST_SCALE * largest:
        raise Undefined(
            "the scores of the image and of the filled image are too close to normalize by their "
            "difference; pixel_flipping gives the loss in units of the score"
        )
    return (scores - filled_score) / (image_score - filled_score)


def require_fall(image_score: float, filled_score: float) -> None:
    """Makes sure that filling the image lowers its score.

    Raises:
        Undefined: If the filled image scores higher.
    """
    if filled_score > image_score:
        raise Undefined(
            "the filled image scores higher than the image, so there is no loss to normalize by; "
            "pixel_flipping gives the loss in units of the score"
        )


def correlation(first: Tensor, second: Tensor) -> float:
    """Pearson correlation.

    Raises:
        Undefined: If one of the two is constant.
    """
    return max(-1.0, min(1.0, float(_standardized(first) @ _standardized(second))))


def _standardized(values: Tensor) -> Tensor:
    """The values with mean 0 and length 1, flat."""
    flat = values.double().flatten()
    centered = flat - flat.mean()
    length = centered.norm()
    if float(length) <= 1e-9 * float(flat.norm()):
        raise Undefined("one of the quantities to correlate is constant")
    unit: Tensor = centered / length
    return unit


def rank_correlation(first: Tensor, second: Tensor) -> float:
    """Spearman correlation.

    Raises:
        Undefined: If one of the two is constant.
    """
    return correlation(ranks(first.flatten()), ranks(second.flatten()))


def ranks(values: Tensor) -> Tensor:
    """Ranks from 1, equal values sharing their mean rank."""
    _, inverse, counts = torch.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    shared: Tensor = (last - (counts.double() - 1) / 2)[inverse]
    return shared
