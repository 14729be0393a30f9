"""Thresholds of units: quantiles of a uniform sample of all voxels, in bounded memory."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from voxplain.engine.randomness import generator

EDGES = 256
"""Thresholds per unit."""
CAPACITY = 2**15
"""Voxels of all cases together that quantiles are taken of; exact if there are no more."""


def shares_on(quantile: float, edges: int = EDGES) -> NDArray[np.float64]:
    """Shares of the voxels that lie at or above the thresholds, falling from 1 to almost 0.

    Above 5 % they are evenly spaced, below their logarithms are, since concepts are small.

    Args:
        quantile: A share that is among them.
        edges: How many.
    """
    small = edges * 5 // 8
    low = np.geomspace(1e-4, 0.05, small)
    high = np.linspace(0.05, 1, edges - small - 1)[1:]
    return np.sort(np.concatenate([[0.0, quantile], low, high]))[::-1]


class VoxelSample:
    """Values of units at voxels that are drawn uniformly from all cases, whatever their order.

    Every voxel has a random number; those with the smallest numbers are kept.

    Args:
        seed: Of the draw.
        capacity: Number of voxels that are kept.
    """

    def __init__(self, seed: int, capacity: int = CAPACITY) -> None:
        self._seed, self._capacity = seed, capacity
        self._keys = torch.empty(0, dtype=torch.float64)
        self._values: dict[object, Tensor] = {}
        self._places = torch.empty(0, dtype=torch.long)

    def draw(self, case: str, voxels: int) -> Tensor:
        """Draws voxels of the next case, and forgets those that are no longer among the kept.

        Args:
            case: Its id.
            voxels: How many it has.

        Returns:
            The numbers of its voxels that are kept for now.
        """
        source = generator(self._seed, "voxels", case)
        keys = torch.rand(voxels, generator=source, dtype=torch.float64)
        before = len(self._keys)
        kept = torch.cat([self._keys, keys]).argsort(stable=True)[: self._capacity]
        chosen = (kept[kept >= before] - before).sort().values
        is_kept = torch.zeros(before, dtype=torch.bool)
        is_kept[kept[kept < before]] = True
        free = (~is_kept).nonzero()[:, 0]
        added = torch.arange(before, before + len(chosen) - len(free))
        self._places = torch.cat([free, added])
        self._keys = torch.cat([self._keys, torch.zeros(len(added), dtype=torch.float64)])
        self._keys[self._places] = keys[chosen]
        return chosen

    def add(self, unit_group: object, values: Tensor) -> None:
        """Takes in the values of a group of units at the voxels drawn, ``(units, drawn)``."""
        if unit_group not in self._values:
            self._values[unit_group] = values.new_empty(len(values), self._capacity)
        self._values[unit_group][:, self._places] = values

    def edges(self, unit_group: object, on: NDArray[np.float64]) -> Tensor:
        """Thresholds of a group of units, ``(units, edges)``, ascending.

        Args:
            unit_group: As in :meth:`add`.
            on: Shares of the voxels at or above them, falling.
        """
        count = len(self._keys)
        index = np.clip(np.ceil((1 - on) * count - 1e-9), 0, count - 1).astype(np.int64)
        values = np.sort(self._values.pop(unit_group)[:, :count].numpy(), axis=1)
        return torch.from_numpy(values[:, index])
