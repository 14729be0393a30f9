"""How well values rank what is inside a mask above what is outside of it."""

from __future__ import annotations

import torch
from torch import Tensor


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
