"""Similarities and scores of the maps at every step of a cascade."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from voxplain.metrics.randomization.similarity import Similarity, similarity


@dataclass(frozen=True, eq=False)
class Steps:
    """The map of one method at every step of a cascade.

    Attributes:
        stages: The layers that each step randomizes; the trained network comes first (none).
        curves: Per seed, the similarity with the trained network's map at every step.
        pictures: The map of the first seed at every step, ``(*spatial)``, if they were kept.
        chance: Similarity between the maps of two independently randomized networks; empty where
            no network is randomized as a whole.
        scores: By the key of a metric, per seed, its value at every step; NaN where undefined.
    """

    stages: tuple[tuple[str, ...], ...]
    curves: tuple[tuple[Similarity, ...], ...]
    pictures: tuple[Tensor, ...] = ()
    chance: tuple[Similarity, ...] = ()
    scores: Mapping[str, tuple[tuple[float, ...], ...]] = field(default_factory=dict)


class StepCollector:
    """Collects the steps of one map, step by step.

    Args:
        trained: Map of the trained network, ``(*spatial)``.
        scores: Of that map, by the key of the metric.
        pictures: Whether the maps of the first seed are kept.
    """

    def __init__(
        self, trained: Tensor, scores: Mapping[str, float] | None = None, pictures: bool = False
    ) -> None:
        self._trained, self._keep_pictures = trained, pictures
        self._trained_scores = dict(scores or {})
        self._curves: dict[int, list[Similarity]] = {}
        self._scores: dict[int, list[Mapping[str, float]]] = {}
        self._pictures: list[Tensor] = []
        self._last: dict[int, Tensor] = {}

    def add(self, seed: int, values: Tensor, scores: Mapping[str, float] | None = None) -> None:
        """Adds the map of the next step of a seed, ``(*spatial)``, and its scores."""
        self._curves.setdefault(seed, []).append(similarity(self._trained, values))
        self._scores.setdefault(seed, []).append(scores or {})
        self._last[seed] = values.cpu()
        if self._keep_pictures and seed == 0:
            self._pictures.append(values.cpu())

    def steps(self, stages: Sequence[tuple[str, ...]], fully_random: bool) -> Steps:
        """All steps.

        Args:
            stages: The layers that each step randomizes, without the trained network.
            fully_random: Whether the last network of every seed is randomized as a whole.
        """
        same = Similarity(1.0, 1.0, 1.0, 1.0)
        pairs = itertools.combinations(self._last.values(), 2) if fully_random else ()
        return Steps(
            stages=((), *stages),
            curves=tuple((same, *curve) for curve in self._curves.values()),
            pictures=(self._trained.cpu(), *self._pictures) if self._keep_pictures else (),
            chance=tuple(similarity(*pair) for pair in pairs),
            scores={key: self._score_curves(key) for key in self._trained_scores},
        )

    def _score_curves(self, key: str) -> tuple[tuple[float, ...], ...]:
        return tuple(
            (self._trained_scores[key], *(step.get(key, math.nan) for step in steps))
            for steps in self._scores.values()
        )
