"""Designs of coalitions for Shapley values and surrogates: which regions are kept together."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from voxplain.engine.masks.samplers import RegionDesign
from voxplain.engine.randomness import generator
from voxplain.errors import ConfigError

MAX_EXACT_REGIONS = 12
"""Largest number of regions of which all coalitions are run."""


def every_coalition(count: int) -> Tensor:
    """All subsets, ``(2**count, count)``: region i is kept in row r if bit i of r is set."""
    rows = torch.arange(2**count)[:, None]
    return ((rows >> torch.arange(count)) & 1).float()


@dataclass(frozen=True)
class AllCoalitions(RegionDesign):
    """Every subset of the regions."""

    def design(self, count: int, key: str) -> Tensor:
        """All of them, the empty one first, the whole image last."""
        return every_coalition(self._checked(count))

    def rows(self, count: int) -> int:
        return int(2 ** self._checked(count))

    def _checked(self, count: int) -> int:
        if count > MAX_EXACT_REGIONS:
            raise ConfigError(
                f"exact Shapley values of {count} regions need 2^{count} (about {2.0**count:.2g}) "
                f"passes; take at most {MAX_EXACT_REGIONS} regions, or shapley_value_sampling"
            )
        return count


@dataclass(frozen=True)
class Bernoulli(RegionDesign):
    """Every region kept with probability 1/2; all subsets equally often if there are fewer.

    Attributes:
        samples: Number of coalitions; None for 8 per region, at least 512.
    """

    samples: int | None = None

    def design(self, count: int, key: str) -> Tensor:
        samples = self._samples(count)
        if self._covers_all(count, samples):
            # About as many rows as samples, so that a penalty weighs the same; each runs once.
            return every_coalition(count).repeat(samples // 2**count, 1)
        source = generator(key, "bernoulli", samples, count)
        return (torch.rand(samples, count, generator=source) < 0.5).float()

    def rows(self, count: int) -> int:
        samples = self._samples(count)
        return int(2**count) if self._covers_all(count, samples) else samples

    def _samples(self, count: int) -> int:
        return max(512, 8 * count) if self.samples is None else self.samples

    def _covers_all(self, count: int, samples: int) -> bool:
        return count < 63 and 2**count <= samples


@dataclass(frozen=True)
class ShapleyKernel(RegionDesign):
    """Coalitions whose size k is drawn with P(k) ~ (M - 1) / (k (M - k)), and their complements.

    The empty coalition comes first. If all others are at most as many as the samples, each of them
    is there once.

    Attributes:
        samples: Number of coalitions; None for 512 plus 2 per region.
    """

    samples: int | None = None

    def design(self, count: int, key: str) -> Tensor:
        """The empty coalition, then pairs of a coalition and its complement."""
        samples = self._samples(count)
        if self._covers_all(count, samples):
            return every_coalition(count)[:-1]
        source = generator(key, "shapley kernel", samples, count)
        sizes = torch.arange(1, count, dtype=torch.float64)
        probabilities = 1 / (sizes * (count - sizes))
        pairs = math.ceil(samples / 2)
        kept = 1 + torch.multinomial(probabilities, pairs, replacement=True, generator=source)
        # Sorted from few regions to half of them, so that successive images differ in few regions.
        kept = torch.minimum(kept, count - kept).sort().values
        ranks = torch.rand(pairs, count, generator=source).argsort(dim=1).argsort(dim=1)
        coalitions = (ranks < kept[:, None]).float()
        both = torch.stack([coalitions, 1 - coalitions], dim=1).flatten(0, 1)
        return torch.cat([torch.zeros(1, count), both])

    def rows(self, count: int) -> int:
        samples = self._samples(count)
        if self._covers_all(count, samples):
            return int(2**count) - 1
        return 2 * math.ceil(samples / 2) + 1

    def _samples(self, count: int) -> int:
        return 512 + 2 * count if self.samples is None else self.samples

    def _covers_all(self, count: int, samples: int) -> bool:
        return count < 63 and 2**count - 2 <= samples


@dataclass(frozen=True)
class Walks(RegionDesign):
    """Random orders in which regions join, each followed by its reversal (antithetic).

    The first row is the empty coalition; then follow the inner coalitions of each walk, without
    the empty one and the image itself.

    Attributes:
        walks: Number of orders; if there are fewer orders, each of them once.
    """

    walks: int = 25

    def design(self, count: int, key: str) -> Tensor:
        ranks = self.orders(count, key).argsort(dim=1)
        joined = ranks[:, None, :] < torch.arange(1, count)[None, :, None]
        return torch.cat([torch.zeros(1, count), joined.flatten(0, 1).float()])

    def rows(self, count: int) -> int:
        return self._number(count) * (count - 1) + 1

    def orders(self, count: int, key: str) -> Tensor:
        """The region that joins at each step, ``(walks, count)``."""
        number = self._number(count)
        if number == _factorial(count):
            return torch.tensor(list(itertools.permutations(range(count))))
        source = generator(key, "walks", self.walks, count)
        half = torch.rand(math.ceil(number / 2), count, generator=source).argsort(dim=1)
        return torch.stack([half, half.flip(1)], dim=1).flatten(0, 1)[:number]

    def _number(self, count: int) -> int:
        return min(self.walks, _factorial(count))


def _factorial(count: int) -> int:
    """The factorial of a number of regions, capped at 20!."""
    return math.factorial(min(count, 20))
