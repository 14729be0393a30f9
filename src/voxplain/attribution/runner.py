"""Runs one stream: points through the network in batches, into the accumulators of their image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from voxplain.attribution.budget import Budget, ran_out_of_memory
from voxplain.attribution.passes import INPUT, Evaluated, Passes
from voxplain.attribution.reducers import Points
from voxplain.attribution.samplers import Draw, Item, Route
from voxplain.attribution.streams import Slot, Stream
from voxplain.errors import VoxplainError


@dataclass(frozen=True, eq=False)
class Reduced:
    """The results of one stream for one item.

    Attributes:
        tensors: Per slot.
        scores: S at the end and at the start of the lines, where completeness asks for them.
    """

    tensors: dict[Slot, Tensor]
    difference: float | None = None
    start_score: float | None = None


class Runner:
    """Runs one stream for batches of items.

    Args:
        stream: What to run.
        passes: How points are evaluated.
        budget: How many at once.
        tick: Called with the number of points after each batch.
        scores: S of the images of the batch, where the stream runs on the images themselves.
        redundancy: How often overlapping windows show a position of a layer.
    """

    def __init__(
        self,
        stream: Stream,
        passes: Passes,
        budget: Budget,
        tick: Callable[[int], None],
        scores: Sequence[float] | None = None,
        redundancy: float = 1.0,
    ) -> None:
        self.stream, self.passes, self.budget, self.tick = stream, passes, budget, tick
        self.scores, self.redundancy = scores, redundancy

    def run(self, items: Sequence[Item]) -> list[Reduced]:
        """The reduced tensors of each item, in order."""
        sums = [_ItemSums(self, item) for item in items]
        work = [(entry, index) for entry in sums for index in range(entry.route.count)]
        done = 0
        while done < len(work):
            part = work[done : done + self.budget.size]
            try:
                self._batch(_segments(part))
            except RuntimeError as error:
                if isinstance(error, VoxplainError) or not ran_out_of_memory(error):
                    raise
                if not self.budget.halve():
                    raise
                continue
            done += len(part)
            self.tick(len(part))
        return [entry.result() for entry in sums]

    def _batch(self, segments: list[tuple[_ItemSums, range]]) -> None:
        draws = [entry.route.draw(indices) for entry, indices in segments]
        rows = [entry.item.row for (entry, indices) in segments for _ in indices]
        inputs = _joined([draw.inputs for draw in draws])
        start = None
        if self.passes.rule.paired:
            start = _joined([_per_point(draw.start, len(draw.inputs)) for draw in draws])
        with self.budget.measured(len(inputs)):
            evaluated = self.passes.run(inputs, rows, start)
        first = 0
        for (entry, indices), draw in zip(segments, draws, strict=True):
            entry.update(draw, evaluated, slice(first, first + len(indices)))
            first += len(indices)


class _ItemSums:
    """The accumulators of one item in one stream."""

    def __init__(self, runner: Runner, item: Item) -> None:
        self.runner, self.item = runner, item
        self.route: Route = runner.stream.request.sampler.route(item)
        self.reducers = {slot: slot.reducer() for slot in runner.stream.slots}
        self._ends: tuple[Evaluated, Evaluated] | None = None
        self._difference = 0.0
        self._start = 0.0

    def update(self, draw: Draw, evaluated: Evaluated, part: slice) -> None:
        """Feeds every reducer with the points of this item in a batch."""
        ends = self._at_ends(draw)
        self._add_scores(draw, evaluated, part, ends)
        for slot, reducer in self.reducers.items():
            start, end = self._line(slot, draw, evaluated, part, ends)
            reducer.update(
                Points(
                    value=_settled(evaluated.values[slot.place][part]),
                    gradient=_settled(evaluated.gradients[slot.place][part]),
                    weights=draw.weights,
                    start=start,
                    end=end,
                    along=draw.along,
                    redundancy=1.0 if slot.place == INPUT else self.runner.redundancy,
                )
            )

    def result(self) -> Reduced:
        """The sums; with the scores where the stream has ends."""
        tensors = {slot: reducer.result() for slot, reducer in self.reducers.items()}
        if not self._has_scores:
            return Reduced(tensors)
        return Reduced(tensors, self._difference, self._start)

    @property
    def _has_scores(self) -> bool:
        stream = self.runner.stream
        return stream.is_complete and (
            stream.request.rule.paired or stream.request.sampler.ends == "shared"
        )

    def _at_ends(self, draw: Draw) -> tuple[Evaluated, Evaluated] | None:
        """Activations and scores where the lines begin and end: once, or for each point."""
        stream = self.runner.stream
        if stream.request.rule.paired or draw.start is None or draw.end is None:
            return None
        shared = stream.request.sampler.ends == "shared"
        if not stream.needs_taps_at_ends and not (shared and stream.is_complete):
            return None
        if shared and self._ends is not None:
            return self._ends
        found = self._observed_ends(draw.start, draw.end)
        self._ends = found if shared else None
        return found

    def _observed_ends(self, start: Tensor, end: Tensor) -> tuple[Evaluated, Evaluated]:
        """Both ends in one call; the score of the image itself is known from binding."""
        scores, row = self.runner.scores, self.item.row
        if scores is not None and not self.runner.stream.needs_taps_at_ends:
            known = Evaluated(torch.tensor([scores[row]], dtype=torch.float64))
            return self.runner.passes.observe(start, [row] * len(start)), known
        points = torch.cat([start, end])
        both = self.runner.passes.observe(points, [row] * len(points))
        return both.part(slice(len(start))), both.part(slice(len(start), None))

    def _add_scores(
        self,
        draw: Draw,
        evaluated: Evaluated,
        part: slice,
        ends: tuple[Evaluated, Evaluated] | None,
    ) -> None:
        if not self._has_scores:
            return
        if evaluated.start_scores is not None:
            weights = draw.weights.to(evaluated.scores)
            start = float((weights * evaluated.start_scores[part]).sum())
            self._difference += float((weights * evaluated.scores[part]).sum()) - start
            self._start += start
        elif ends is not None:
            self._start = float(ends[0].scores[0])
            self._difference = float(ends[1].scores[0]) - self._start

    def _line(
        self,
        slot: Slot,
        draw: Draw,
        evaluated: Evaluated,
        part: slice,
        ends: tuple[Evaluated, Evaluated] | None,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Values at both ends of the lines at this place, where the reducer reads them."""
        if not self.reducers[slot].needs_ends:
            return None, None
        if slot.place == INPUT:
            return draw.start, draw.end
        if evaluated.start_values:
            return (
                _settled(evaluated.start_values[slot.place][part]),
                _settled(evaluated.values[slot.place][part]),
            )
        if ends is None:
            return None, None
        return _settled(ends[0].values[slot.place]), _settled(ends[1].values[slot.place])


def _segments(part: list[tuple[_ItemSums, int]]) -> list[tuple[_ItemSums, range]]:
    """Consecutive work of one item as ranges of point numbers."""
    found: list[tuple[_ItemSums, range]] = []
    for entry, index in part:
        if found and found[-1][0] is entry:
            found[-1] = (entry, range(found[-1][1].start, index + 1))
        else:
            found.append((entry, range(index, index + 1)))
    return found


def _joined(parts: list[Tensor | None]) -> Tensor:
    tensors = [part for part in parts if part is not None]
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def _per_point(start: Tensor | None, count: int) -> Tensor | None:
    return None if start is None else start.expand(count, *start.shape[1:])


def _settled(values: Tensor) -> Tensor:
    """Half precision is for the network; sums run in float32."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
