"""A region moved to every other place: what a change does there is the null of what it does here.

All places are looked at together, by correlation in Fourier space.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage, signal
from torch import Tensor

_ROUNDING = 1e-9
"""Of a correlation, relative to the largest value."""


class Placements:
    """The places to which a region can be moved.

    Args:
        mask: The region, ``(*cells)`` bool, not empty.
        allowed: Where all of it has to lie, ``(*cells)`` bool; it may not overlap where it is.
    """

    def __init__(self, mask: Tensor, allowed: Tensor) -> None:
        self._mask = mask.cpu().numpy()
        (box,) = ndimage.find_objects(self._mask.astype(np.uint8))
        self._crop: NDArray[np.float64] = self._mask[box].astype(np.float64)
        self._size = float(self._crop.sum())
        inside = self._correlated(allowed.cpu().numpy().astype(np.float64)) > self._size - 0.5
        apart = self._correlated(self._mask.astype(np.float64)) < 0.5
        self._fits = inside & apart

    def __len__(self) -> int:
        return int(self._fits.sum())

    def means(self, values: Tensor) -> NDArray[np.float64]:
        """The mean of values ``(*cells)`` over the region at each place, ``(places,)``."""
        found = self._correlated(values.double().cpu().numpy()) / self._size
        return np.asarray(found[self._fits])

    def share_at_least(self, values: Tensor, here: float) -> float | None:
        """The p value of a mean: (1 + places with at least it) / (1 + places); None without any."""
        if not len(self):
            return None
        slack = _ROUNDING * float(values.abs().max())
        return (1 + int((self.means(values) >= here - slack).sum())) / (1 + len(self))

    def drawn(self, count: int, source: torch.Generator) -> list[Tensor]:
        """The region at some of the places, drawn without repetition, each ``(*cells)`` bool."""
        corners = np.argwhere(self._fits)
        order = torch.randperm(len(corners), generator=source)[:count].tolist()
        return [self._at(corners[number]) for number in order]

    def _at(self, corner: NDArray[np.int64]) -> Tensor:
        moved = np.zeros_like(self._mask)
        ends = zip(corner, self._crop.shape, strict=True)
        moved[tuple(slice(int(start), int(start) + side) for start, side in ends)] = self._crop > 0
        return torch.from_numpy(moved)

    def _correlated(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(signal.fftconvolve(values, np.flip(self._crop), mode="valid"))
