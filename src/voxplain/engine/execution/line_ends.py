"""Activations and scores at the ends of the lines through the points of a gradient stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from voxplain.engine.gradients.reducers import in_float32
from voxplain.engine.gradients.samplers import PointBatch, Sampler
from voxplain.engine.passes.base import Passes
from voxplain.engine.passes.points import PassResult, Points
from voxplain.engine.stream_io import StreamInput
from voxplain.engine.taps import INPUT, Tap

Ends = tuple[PassResult, PassResult]
"""Activations and scores where the lines through the points start and end."""


class ReadsEnds(Protocol):
    """What is asked of a runner.

    Attributes:
        passes: How points are evaluated.
        sampler: Of the points.
        scores: S of the images, where the stream runs on the images themselves.
        taps_at_ends: Whether activations at the ends are read.
    """

    passes: Passes
    sampler: Sampler
    scores: Sequence[float] | None
    taps_at_ends: bool


class LineEnds:
    """The ends of the lines of one image, each evaluated once.

    Args:
        runner: The stream and the network.
        item: The image, or a noisy copy of it.
    """

    def __init__(self, runner: ReadsEnds, item: StreamInput) -> None:
        self.runner, self.item = runner, item
        self._shared: Ends | None = None
        self._origins: dict[int, float] = {}

    def of(self, points: PointBatch) -> Ends | None:
        """Activations and scores at the ends: once, or for each point; None without lines."""
        if points.start is None or points.end is None:
            return None
        if self.runner.sampler.ends != "shared":
            return self._of_each(points, points.start, points.end)
        if self._shared is None:
            self._shared = self._observed(points.start, points.end)
        return self._shared

    def _observed(self, start: Tensor, end: Tensor) -> Ends:
        """Both ends in one call; the score of the image itself is known from binding."""
        observe, scores, row = self.runner.passes.observe, self.runner.scores, self.item.row
        if scores is not None and not self.runner.taps_at_ends:
            image = PassResult(torch.tensor([scores[row]], dtype=torch.float64))
            return observe(Points(start, [row] * len(start))), image
        both = torch.cat([start, end])
        result = observe(Points(both, [row] * len(both)))
        return result.part(slice(len(start))), result.part(slice(len(start), None))

    def _of_each(self, points: PointBatch, start: Tensor, end: Tensor) -> Ends:
        """Both ends of every line; scores alone where no layer is read, each start once."""
        if self.runner.taps_at_ends or len(points.origins) < len(end):
            return self._observed(start, end)
        observe, row = self.runner.passes.observe, self.item.row
        new = {origin: at for at, origin in enumerate(points.origins)}
        new = {origin: at for origin, at in new.items() if origin not in self._origins}
        if new:
            found = observe(Points(start[list(new.values())], [row] * len(new))).scores
            self._origins.update(zip(new, found.tolist(), strict=True))
        starts = [self._origins[origin] for origin in points.origins]
        scores = self.runner.scores
        if scores is not None and bool((end == self.item.image).all()):
            ends = [scores[row]] * len(end)
        else:
            ends = observe(Points(end, [row] * len(end))).scores.tolist()
        both = (torch.tensor(values, dtype=torch.float64) for values in (starts, ends))
        first, last = (PassResult(values) for values in both)
        return first, last


def values_at_ends(
    place: Tap, points: PointBatch, result: PassResult, rows: slice, ends: Ends | None
) -> tuple[Tensor | None, Tensor | None]:
    """Values at both ends of the lines at a place, as far as they were evaluated.

    Args:
        place: The input, or a layer.
        points: Of one image.
        result: Of a batch.
        rows: The points in the batch.
        ends: Those of :class:`LineEnds`; None where a paired rule ran both ends.
    """
    if place == INPUT:
        return points.start, points.end
    if result.start_values:
        start, end = result.start_values[place][rows], result.values[place][rows]
        return in_float32(start), in_float32(end)
    if ends is None:
        return None, None
    return in_float32(ends[0].values[place]), in_float32(ends[1].values[place])
