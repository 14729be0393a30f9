"""What is kept of a cascade: how alike the maps of every step are, and how they score."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from voxplain.metrics.randomization.similarity import Similarity, similarity


@dataclass(frozen=True, eq=False)
class Steps:
    """What became of one map.

    Attributes:
        stages: The layers that each step randomizes, the trained network first (none).
        curves: Per seed, the similarity with the trained network's map at every step.
        pictures: Per step the map of the first seed, ``(*spatial)``, where they were asked for.
        chance: Similarity between the maps of two independently randomized networks; empty where
            no network is randomized as a whole.
        scores: By the key of a metric, per seed, its value at every step; NaN where undefined.
    """

    stages: tuple[tuple[str, ...], ...]
    curves: tuple[tuple[Similarity, ...], ...]
    pictures: tuple[Tensor, ...] = ()
    chance: tuple[Similarity, ...] = ()
    scores: Mapping[str, tuple[tuple[float, ...], ...]] = field(default_factory=dict)


class Gathered:
    """The steps of one map, as they come.

    Args:
        trained: Map of the trained network, ``(*spatial)``.
        scores: Of that map, by the key of the metric.
        pictures: Whether the maps of the first seed are kept.
    """

    def __init__(
        self, trained: Tensor, scores: Mapping[str, float] | None = None, pictures: bool = False
    ) -> None:
        self._trained, self._pictures = trained, pictures
        self._scores = dict(scores or {})
        self._curves: dict[int, list[Similarity]] = {}
        self._scored: dict[int, list[Mapping[str, float]]] = {}
        self._shown: list[Tensor] = []
        self._last: dict[int, Tensor] = {}

    def add(self, seed: int, map: Tensor, scores: Mapping[str, float] | None = None) -> None:
        """Takes in the map of the next step, ``(*spatial)``."""
        self._curves.setdefault(seed, []).append(similarity(self._trained, map))
        self._scored.setdefault(seed, []).append(scores or {})
        self._last[seed] = map.cpu()
        if self._pictures and seed == 0:
            self._shown.append(map.cpu())

    def steps(self, stages: Sequence[tuple[str, ...]], random: bool) -> Steps:
        """All of them.

        Args:
            stages: The layers that each step randomizes, without the trained network.
            random: Whether the last network of every seed is random as a whole.
        """
        same = Similarity(1.0, 1.0, 1.0, 1.0)
        pairs = itertools.combinations(self._last.values(), 2) if random else ()
        return Steps(
            stages=((), *stages),
            curves=tuple((same, *curve) for curve in self._curves.values()),
            pictures=(self._trained.cpu(), *self._shown) if self._pictures else (),
            chance=tuple(similarity(one, other) for one, other in pairs),
            scores={key: self._rows(key) for key in self._scores},
        )

    def _rows(self, key: str) -> tuple[tuple[float, ...], ...]:
        return tuple(
            (self._scores[key], *(step.get(key, math.nan) for step in steps))
            for steps in self._scored.values()
        )
