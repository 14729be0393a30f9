"""Random draws that depend on the seed and the image only; noisy copies and sums over them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from voxplain.engine.baselines import intensity_range

Statistic = Literal["mean", "mean_square", "variance"]
"""What becomes of the maps of noisy copies."""


def generator(*parts: object) -> torch.Generator:
    """A CPU generator for one work item, from everything that identifies it."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def standard_normal(like: Tensor, source: torch.Generator) -> Tensor:
    """N(0, 1) of the shape, type and place of a tensor, the same on every device."""
    return torch.randn(like.shape, generator=source, dtype=torch.float32).to(like)


class CopyStatistic:
    """Mean, mean of squares or variance of the maps of noisy copies, one map in memory.

    The variance is the population variance in Welford's running form.
    """

    def __init__(self, kind: Statistic) -> None:
        self._kind = kind
        self._count = 0
        self._mean: Tensor | None = None
        self._spread: Tensor | None = None

    def update(self, map: Tensor) -> None:
        """Takes in the map of one copy."""
        self._count += 1
        value = map.square() if self._kind == "mean_square" else map
        if self._mean is None:
            self._mean, self._spread = value.clone(), torch.zeros_like(value)
            return
        difference = value - self._mean
        self._mean += difference / self._count
        if self._kind == "variance" and self._spread is not None:
            self._spread += difference * (value - self._mean)

    def result(self) -> Tensor:
        """The statistic over the copies seen."""
        if self._mean is None or self._spread is None:
            raise ValueError("no copy was seen")
        return self._spread / self._count if self._kind == "variance" else self._mean


@dataclass(frozen=True)
class GaussianNoise:
    """Noisy copies x + e of an image, e ~ N(0, (sigma * range)^2) per channel.

    Attributes:
        samples: Number of copies.
        sigma: Standard deviation as a fraction of the intensity range.
        range: ``robust`` is q99.5 - q0.5 of the foreground, ``minmax`` the whole range.
    """

    samples: int
    sigma: float
    range: Literal["robust", "minmax"] = "robust"

    def copies(self, image: Tensor, key: str) -> Iterator[Tensor]:
        """Noisy copies ``(C, *spatial)``, each from its own generator."""
        scale = self.sigma * intensity_range(image, self.range)
        for index in range(self.samples):
            yield image + scale * self.noise(image, key, index)

    def noise(self, image: Tensor, key: str, index: int) -> Tensor:
        """Standard normal noise of one copy."""
        return standard_normal(image, generator(key, "noise", index))


@dataclass(frozen=True)
class NoisyCopies:
    """Noisy copies over which the maps of a method are summed up."""

    sampler: GaussianNoise
    statistic: Statistic
