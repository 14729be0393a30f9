"""Probabilities and rankings against what is true: calibration, ROC, precision and recall."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Binning = Literal["equal_width", "equal_mass"]
Points = tuple[tuple[float, float], ...]


def calibration_gaps(
    probabilities: Tensor, there: Tensor, bins: int = 15, binning: Binning = "equal_width"
) -> tuple[Tensor, Points]:
    """The gap in the bin of each probability, and the points of the reliability curve.

    A gap is |mean probability - share of cases where the class is there|; a point is both. The
    mean of the gaps is the expected calibration error (Guo et al., 2017), with bins of equal mass
    the adaptive one (Nixon et al., 2019).

    Args:
        probabilities: ``(n,)`` in [0, 1].
        there: ``(n,)`` bool.
        bins: How many.
        binning: Bins of the same width, or with as many cases each.

    Returns:
        Gaps ``(n,)``, and a point for each bin that is not empty.
    """
    numbers = bins_of(probabilities, bins, binning)
    counts = torch.bincount(numbers, minlength=bins)
    means, shares = (
        torch.bincount(numbers, weights, minlength=bins) / counts.clamp_min(1)
        for weights in (probabilities, there.double())
    )
    used = counts > 0
    curve = tuple(zip(means[used].tolist(), shares[used].tolist(), strict=True))
    return (means - shares).abs()[numbers], curve


def bins_of(probabilities: Tensor, bins: int, binning: Binning) -> Tensor:
    """The bin of each case ``(n,)``; bins hold their upper end, equal values share a bin."""
    if binning == "equal_width":
        return (probabilities * bins).ceil().long().clamp(1, bins) - 1
    count = len(probabilities)
    ends = torch.arange(1, bins, device=probabilities.device) * count / bins
    inner = probabilities.sort().values[(ends.ceil().long() - 1).clamp_min(0)]
    return torch.searchsorted(inner, probabilities)


def roc_auc(values: Tensor, inside: Tensor) -> float:
    """Area under the ROC curve; equal values count half.

    Args:
        values: Of any shape.
        inside: Of the same shape, bool, neither empty nor everything.
    """
    taken, hits = _sorted_hits(values, inside)
    outside = taken - hits
    zero = taken.new_zeros(1)
    true_positive_rate = torch.cat([zero, hits]) / hits[-1]
    false_positive_rate = torch.cat([zero, outside]) / outside[-1]
    return float(torch.trapezoid(true_positive_rate, false_positive_rate))


def average_precision(values: Tensor, inside: Tensor) -> float:
    """Area under the curve of precision over recall, in steps.

    Args:
        values: Of any shape.
        inside: Of the same shape, bool, not empty.
    """
    taken, hits = _sorted_hits(values, inside)
    recall_steps = torch.cat([hits[:1], hits.diff()]) / hits[-1]
    return float((recall_steps * hits / taken).sum())


def _sorted_hits(values: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """How many values reach each distinct value, descending, and how many of them are inside."""
    ordered, order = values.flatten().sort(descending=True)
    hits = inside.flatten()[order].double().cumsum(0)
    ends = torch.cat([ordered[1:] != ordered[:-1], ordered.new_ones(1, dtype=torch.bool)])
    taken = torch.arange(1, len(ordered) + 1, dtype=torch.float64, device=ordered.device)
    return taken[ends], hits[ends]
