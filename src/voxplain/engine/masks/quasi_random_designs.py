"""Designs of coalitions from Sobol sequences, with fading or switched regions."""

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
    """Pick-freeze design: matrices A and B of levels from one Sobol sequence, and their mixtures.

    Rows: A, B, then A with column i of B for every region i; ``samples (regions + 2)`` in all.

    Attributes:
        samples: Rows of A and of B; powers of two are balanced best.
    """

    samples: int = 32

    def design(self, count: int, key: str) -> Tensor:
        points = quasi_random(self.samples, 2 * count, key)
        first, second = points[:, :count], points[:, count:]
        mixed = first.expand(count, *first.shape).clone()
        regions = torch.arange(count)
        mixed[regions, :, regions] = second.T
        return torch.cat([first, second, mixed.flatten(0, 1)])

    def rows(self, count: int) -> int:
        return self.samples * (count + 2)


@dataclass(frozen=True)
class QuasiSwitches(RegionDesign):
    """Every region kept or removed: kept in the upper half of each axis of a Sobol sequence.

    Attributes:
        samples: Number of coalitions; powers of two are balanced best.
    """

    samples: int = 512

    def design(self, count: int, key: str) -> Tensor:
        return (quasi_random(self.samples, count, key) >= 0.5).float()

    def rows(self, count: int) -> int:
        return self.samples


@dataclass(frozen=True)
class QuasiLevels(RegionDesign):
    """Every region at one of a few equally spaced levels from removed to kept.

    The first row removes everything.

    Attributes:
        samples: Number of coalitions; None for 12 per region, at least 512.
        levels: Number of levels.
    """

    samples: int | None = None
    levels: int = 4

    def design(self, count: int, key: str) -> Tensor:
        """The empty coalition, then a Sobol sequence rounded down to the levels."""
        points = quasi_random(self.rows(count) - 1, count, key)
        levels = (points * self.levels).floor().clamp_max(self.levels - 1) / (self.levels - 1)
        return torch.cat([torch.zeros(1, count), levels])

    def rows(self, count: int) -> int:
        return 1 + (max(512, 12 * count) if self.samples is None else self.samples)


def quasi_random(samples: int, dimensions: int, key: str) -> Tensor:
    """Points of a scrambled Sobol sequence, ``(samples, dimensions)`` in [0, 1).

    Args:
        samples: Number of points.
        dimensions: Of each point.
        key: Seed of the scrambling.

    Raises:
        ConfigError: If there are more dimensions than a Sobol sequence can have.
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
