"""Coalitions of regions that games and surrogates ask about: which regions are kept together."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from voxplain.engine.masks.samplers import RegionDesign
from voxplain.engine.randomness import generator
from voxplain.errors import ConfigError

MOST_EXACT = 12
"""Regions up to which all coalitions are affordable."""


def every_coalition(count: int) -> Tensor:
    """All subsets, ``(2**count, count)``: region i is kept in row r if bit i of r is set."""
    rows = torch.arange(2**count)[:, None]
    return ((rows >> torch.arange(count)) & 1).float()


@dataclass(frozen=True)
class AllCoalitions(RegionDesign):
    """Every subset of the regions."""

    def design(self, count: int, key: str) -> Tensor:
        """All of them, the empty one first, the whole image last."""
        return every_coalition(self._affordable(count))

    def rows(self, count: int) -> int:
        """Two to the number of regions."""
        return int(2 ** self._affordable(count))

    def _affordable(self, count: int) -> int:
        if count > MOST_EXACT:
            raise ConfigError(
                f"exact Shapley values of {count} regions need 2^{count} (about {2.0**count:.2g}) "
                f"passes; take at most {MOST_EXACT} regions, or shapley_value_sampling"
            )
        return count


@dataclass(frozen=True)
class Bernoulli(RegionDesign):
    """Every region kept or removed by a fair coin; all subsets equally often where they are fewer.

    Attributes:
        samples: Number of coalitions; None for 8 per region, 512 at least.
    """

    samples: int | None = None

    def design(self, count: int, key: str) -> Tensor:
        """Independent draws."""
        samples = self._asked(count)
        if self._is_exhausted(count, samples):
            # As many rows as were asked for, so that a penalty weighs the same; each runs once.
            return every_coalition(count).repeat(samples // 2**count, 1)
        source = generator(key, "bernoulli", samples, count)
        return (torch.rand(samples, count, generator=source) < 0.5).float()

    def rows(self, count: int) -> int:
        """As many as are asked for, or all there are."""
        samples = self._asked(count)
        return int(2**count) if self._is_exhausted(count, samples) else samples

    def _asked(self, count: int) -> int:
        return max(512, 8 * count) if self.samples is None else self.samples

    def _is_exhausted(self, count: int, samples: int) -> bool:
        return count < 63 and 2**count <= samples


@dataclass(frozen=True)
class ShapleyKernel(RegionDesign):
    """Coalitions whose size k is drawn with P(k) ~ (M - 1) / (k (M - k)), and their complements.

    The empty coalition comes first. Where all others are not more than the samples, they are all
    there, each once.

    Attributes:
        samples: Number of coalitions; None for 512 and 2 per region.
    """

    samples: int | None = None

    def design(self, count: int, key: str) -> Tensor:
        """The empty coalition, then pairs of a coalition and its complement."""
        samples = self._asked(count)
        if self._is_exhausted(count, samples):
            return every_coalition(count)[:-1]
        source = generator(key, "shapley kernel", samples, count)
        sizes = torch.arange(1, count, dtype=torch.float64)
        likely = 1 / (sizes * (count - sizes))
        pairs = math.ceil(samples / 2)
        kept = 1 + torch.multinomial(likely, pairs, replacement=True, generator=source)
        # From few regions to half of them, so that one image is like the last one painted.
        kept = torch.minimum(kept, count - kept).sort().values
        order = torch.rand(pairs, count, generator=source).argsort(dim=1).argsort(dim=1)
        chosen = (order < kept[:, None]).float()
        both = torch.stack([chosen, 1 - chosen], dim=1).flatten(0, 1)
        return torch.cat([torch.zeros(1, count), both])

    def rows(self, count: int) -> int:
        """As many as are asked for, or all there are, and the empty one."""
        samples = self._asked(count)
        if self._is_exhausted(count, samples):
            return int(2**count) - 1
        return 2 * math.ceil(samples / 2) + 1

    def _asked(self, count: int) -> int:
        return 512 + 2 * count if self.samples is None else self.samples

    def _is_exhausted(self, count: int, samples: int) -> bool:
        return count < 63 and 2**count - 2 <= samples


@dataclass(frozen=True)
class Walks(RegionDesign):
    """Random orders in which regions join, each followed by its reversal (antithetic).

    The first row is the empty coalition; then come the coalitions of each walk without its first,
    the empty one, and its last, the image itself.

    Attributes:
        walks: Number of orders; all there are, each once, where these are fewer.
    """

    walks: int = 25

    def design(self, count: int, key: str) -> Tensor:
        """Coalitions in the order of the walks."""
        place = self.orders(count, key).argsort(dim=1)
        joined = place[:, None, :] < torch.arange(1, count)[None, :, None]
        return torch.cat([torch.zeros(1, count), joined.flatten(0, 1).float()])

    def rows(self, count: int) -> int:
        """One less than regions per walk, and the empty one."""
        return self._number(count) * (count - 1) + 1

    def orders(self, count: int, key: str) -> Tensor:
        """``(walks, count)``: which region joins at each step."""
        number = self._number(count)
        if number == _factorial(count):
            return torch.tensor(list(itertools.permutations(range(count))))
        source = generator(key, "walks", self.walks, count)
        half = torch.rand(math.ceil(number / 2), count, generator=source).argsort(dim=1)
        return torch.stack([half, half.flip(1)], dim=1).flatten(0, 1)[:number]

    def _number(self, count: int) -> int:
        return min(self.walks, _factorial(count))


def _factorial(count: int) -> int:
    """Of numbers of regions; beyond 20 it is more than anyone walks."""
    return math.factorial(min(count, 20))


__all__ = ["MOST_EXACT", "AllCoalitions", "Bernoulli", "ShapleyKernel", "Walks", "every_coalition"]
