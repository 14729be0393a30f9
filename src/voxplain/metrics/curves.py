"""Curves of a score over a growing share, and the numbers read from them."""

from __future__ import annotations

import torch
from torch import Tensor

from voxplain.metrics.map_field import Undefined

_FLAT = 1e-6
"""Differences of scores below this share of their size are no differences."""
_LEAST = 0.1
"""Of all that a curve spans: how far apart its ends have to be, to be its scale."""


def area(curve: Tensor, along: Tensor | None = None) -> float:
    """Trapezoidal area under a curve; over [0, 1] in equal steps unless told."""
    if along is None:
        along = torch.linspace(0, 1, len(curve), dtype=torch.float64)
    return float(torch.trapezoid(curve.double(), along))


def normalized(scores: Tensor, whole: float, empty: float) -> Tensor:
    """Scores with that of the image at 1 and that of the filled image at 0.

    Raises:
        Undefined: If the two are too close to each other to be a scale.
    """
    seen = torch.cat([scores.double(), scores.new_tensor([whole, empty]).double()])
    span, largest = float(seen.amax() - seen.amin()), float(seen.abs().amax())
    if abs(whole - empty) <= max(_FLAT * largest, _LEAST * span):
        raise Undefined(
            "the filled image scores nearly as the image does, which is no scale for what is lost; "
            "pixel_flipping has it in units of the score"
        )
    return (scores - empty) / (whole - empty)


def require_fall(whole: float, empty: float) -> None:
    """Makes sure that the image has something to lose.

    Raises:
        Undefined: If the filled image scores higher.
    """
    if empty > whole:
        raise Undefined(
            "the filled image scores higher than the image, which has nothing to lose; "
            "pixel_flipping has it in units of the score"
        )


def correlation(first: Tensor, second: Tensor) -> float:
    """Pearson correlation.

    Raises:
        Undefined: If one of the two is constant.
    """
    a, b = _centered(first), _centered(second)
    return max(-1.0, min(1.0, float(a @ b)))


def _centered(values: Tensor) -> Tensor:
    flat = values.double().flatten()
    centered = flat - flat.mean()
    length = centered.norm()
    if float(length) <= 1e-9 * float(flat.norm()):
        raise Undefined("what is to be correlated is constant")
    unit: Tensor = centered / length
    return unit


def ranks(values: Tensor) -> Tensor:
    """Ranks from 1, equal values sharing their mean rank."""
    _, inverse, counts = torch.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    shared: Tensor = (last - (counts.double() - 1) / 2)[inverse]
    return shared


def rank_correlation(first: Tensor, second: Tensor) -> float:
    """Spearman correlation.

    Raises:
        Undefined: If one of the two is constant.
    """
    return correlation(ranks(first.flatten()), ranks(second.flatten()))
