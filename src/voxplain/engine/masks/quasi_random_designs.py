"""Coalitions of low discrepancy: regions that fade, and regions that are switched."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from voxplain.engine.masks.samplers import RegionDesign
from voxplain.engine.randomness import generator
from voxplain.errors import ConfigError

_MOST_DIMENSIONS = 21201


@dataclass(frozen=True)
class PickFreeze(RegionDesign):
    """Two matrices of fades A and B from one Sobol sequence, and A with one column of B each.

    Rows: A, B, then A with column i of B for every region i; ``samples (regions + 2)`` in all.

    Attributes:
        samples: Rows of A and of B; powers of two are balanced best.
    """

    samples: int = 32

    def design(self, count: int, key: str) -> Tensor:
        """The fades of all regions."""
        points = quasi_random(self.samples, 2 * count, key)
        first, second = points[:, :count], points[:, count:]
        mixed = first.expand(count, *first.shape).clone()
        regions = torch.arange(count)
        mixed[regions, :, regions] = second.T
        return torch.cat([first, second, mixed.flatten(0, 1)])

    def rows(self, count: int) -> int:
        """Samples for A, for B and for every region."""
        return self.samples * (count + 2)


@dataclass(frozen=True)
class QuasiSwitches(RegionDesign):
    """Every region kept or removed, evenly over all combinations of a few.

    Attributes:
        samples: Number of coalitions; powers of two are balanced best.
    """

    samples: int = 512

    def design(self, count: int, key: str) -> Tensor:
        """The upper half of each axis of a Sobol sequence keeps."""
        return (quasi_random(self.samples, count, key) >= 0.5).float()

    def rows(self, count: int) -> int:
        """As many as are asked for."""
        return self.samples


@dataclass(frozen=True)
class QuasiLevels(RegionDesign):
    """Every region at one of a few equally spaced levels from removed to kept.

    The first row removes everything.

    Attributes:
        samples: Number of coalitions; None for 12 per region, 512 at least.
        levels: How many levels there are.
    """

    samples: int | None = None
    levels: int = 4

    def design(self, count: int, key: str) -> Tensor:
        """A Sobol sequence cut into the levels."""
        points = quasi_random(self.rows(count) - 1, count, key)
        levels = (points * self.levels).floor().clamp_max(self.levels - 1) / (self.levels - 1)
        return torch.cat([torch.zeros(1, count), levels])

    def rows(self, count: int) -> int:
        """As many as are asked for, and the empty one."""
        return 1 + (max(512, 12 * count) if self.samples is None else self.samples)


def quasi_random(samples: int, dimensions: int, key: str) -> Tensor:
    """Points of a scrambled Sobol sequence, ``(samples, dimensions)`` in [0, 1).

    Args:
        samples: How many.
        dimensions: Of each.
        key: What the scrambling depends on.

    Raises:
        ConfigError: If there are more dimensions than sequences.
    """
    from scipy.stats import qmc

    if dimensions > _MOST_DIMENSIONS:
        raise ConfigError(
            f"a Sobol sequence has at most {_MOST_DIMENSIONS:,} dimensions and {dimensions:,} are "
            "needed; take fewer regions"
        )
    source = generator(key, "sobol", dimensions)
    draws = np.random.default_rng(int(torch.randint(2**62, (1,), generator=source)))
    sequence = cast(Any, qmc.Sobol)(dimensions, scramble=True, seed=draws)
    points = sequence.random_base2(math.ceil(math.log2(max(2, samples))))
    return torch.from_numpy(points[:samples]).float()


__all__ = ["PickFreeze", "QuasiLevels", "QuasiSwitches", "quasi_random"]
