"""Quantiles of values that come in parts, from a histogram that widens when it must."""

from __future__ import annotations

import torch
from torch import Tensor

_BINS = 8192


class StreamingQuantiles:
    """Quantiles of a stream of numbers, exact to 1/4096 of their range, in fixed memory."""

    def __init__(self) -> None:
        self._counts = torch.zeros(_BINS, dtype=torch.float64)
        self._low, self._width = 0.0, 0.0

    def add(self, values: Tensor) -> None:
        """Takes in values of any shape."""
        flat = values.detach().flatten().double().cpu()
        if not len(flat):
            return
        low, high = float(flat.min()), float(flat.max())
        if not self._width:
            self._low = low
            self._width = max((high - low) * 1.001, 1e-9 * max(abs(low), 1.0)) / _BINS
        while low < self._low:
            self._widen(downward=True)
        while high >= self._low + _BINS * self._width:
            self._widen(downward=False)
        index = ((flat - self._low) / self._width).long().clamp(0, _BINS - 1)
        self._counts += torch.bincount(index, minlength=_BINS)

    def _widen(self, downward: bool) -> None:
        """Twice the range, by joining pairs of bins."""
        pairs, none = self._counts.view(-1, 2).sum(dim=1), torch.zeros(_BINS // 2)
        self._counts = torch.cat([none, pairs] if downward else [pairs, none]).double()
        self._low -= _BINS * self._width if downward else 0.0
        self._width *= 2

    def quantile(self, share: float) -> float:
        """The value below which a share of the numbers lies; NaN without numbers."""
        total = float(self._counts.sum())
        if not total:
            return float("nan")
        below = self._counts.cumsum(dim=0)
        index = int(torch.searchsorted(below, share * total).clamp_max(_BINS - 1))
        before = float(below[index - 1]) if index else 0.0
        inside = (share * total - before) / max(float(self._counts[index]), 1.0)
        return self._low + (index + min(max(inside, 0.0), 1.0)) * self._width
