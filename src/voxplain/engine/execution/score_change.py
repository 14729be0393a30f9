"""The change of the score along the lines of a gradient stream, which its maps should sum to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from voxplain.engine.execution.line_ends import Ends
from voxplain.engine.gradients.samplers import RESIDUAL, PointBatch
from voxplain.engine.gradients.samplers import Ends as EndsKind
from voxplain.engine.passes.points import PassResult
from voxplain.engine.requests import Slot
from voxplain.engine.taps import INPUT


class ScoreChange:
    """S at the end minus S at the start of one image, summed over its points.

    Args:
        kind: Which ends the points have.
        in_layer: Whether an activation moves along the line while the network sees the image.

    Attributes:
        difference: S(end) - S(start).
        start: S(start).
    """

    def __init__(self, kind: EndsKind, in_layer: bool) -> None:
        self._kind, self._in_layer = kind, in_layer
        self.difference = self.start = 0.0
        self._is_first = True
        self._at_ends: dict[float, float] = {}
        self._totals: list[dict[Slot[Any], float]] = []

    def start_again(self) -> None:
        """Called before other points take the place of those so far."""
        self._is_first = True

    def add(self, points: PointBatch, result: PassResult, rows: slice, ends: Ends | None) -> None:
        """Takes in the scores of some points.

        Args:
            points: Of one image.
            result: Of a batch.
            rows: The points in the batch.
            ends: Scores at the ends of their lines, where they were evaluated.
        """
        scores = result.scores[rows]
        if result.start_scores is not None:
            weights = points.weights.to(scores)
            start = float((weights * result.start_scores[rows]).sum())
            self.difference += float((weights * scores).sum()) - start
            self.start += start
        elif ends is not None and self._kind == "each":
            first, last = (end.scores.double().cpu() for end in ends)
            self.start += float((points.weights * first).sum())
            self.difference += float((points.weights * (last - first)).sum())
        elif ends is not None:
            self.start = float(ends[0].scores[0])
            self.difference = float(ends[1].scores[0]) - self.start
        elif self._kind == "visited":
            self.start = float(scores[0]) if self._is_first else self.start
            self.difference = float(scores[-1]) - self.start
        self._is_first = False
        if self._in_layer and points.along is not None:
            found = zip(points.along.tolist(), scores.tolist(), strict=True)
            self._at_ends |= {along: score for along, score in found if along in (0.0, 1.0)}

    def is_met_by(self, maps: Mapping[Slot[Any], Tensor]) -> bool:
        """Whether every map sums to the change of the score.

        For an activation that moves this is the change at the ends of its own line. Otherwise what
        bypasses a layer is not in its sum, which is then met when it stays through two refinements.
        """
        sums = {slot: float(values.double().sum()) for slot, values in maps.items()}
        earlier, self._totals = self._totals[-2:], [*self._totals, sums]
        change = self.difference
        if self._in_layer:
            change = self._at_ends[1.0] - self._at_ends[0.0]

        def is_near(slot: Slot[Any], value: float) -> bool:
            return abs(sums[slot] - value) <= RESIDUAL * abs(self.difference)

        def stays(slot: Slot[Any]) -> bool:
            if slot.place == INPUT or self._in_layer or len(earlier) < 2:
                return False
            return all(is_near(slot, before[slot]) for before in earlier)

        return all(is_near(slot, change) or stays(slot) for slot in sums)
