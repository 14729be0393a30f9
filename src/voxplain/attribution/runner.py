"""Runs one stream: points through the network in batches, into the accumulators of their image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from voxplain.attribution.budget import Budget, ran_out_of_memory
from voxplain.attribution.moved import Moved
from voxplain.attribution.passes import INPUT, Evaluated, Passes
from voxplain.attribution.reducers import Points
from voxplain.attribution.samplers import Draw, Item, Route
from voxplain.attribution.streams import AnySlot, Slot, Stream
from voxplain.errors import VoxplainError


@dataclass(frozen=True, eq=False)
class Reduced:
    """The results of one stream for one item.

    Attributes:
        tensors: Per slot.
        difference: S at the end minus S at the start of the lines, where completeness asks for it.
        start_score: S at the start.
        totals: Per slot what the method shares out, where that is not the sum of its map.
        findings: Per slot what else came out, for the sidecar.
    """

    tensors: Mapping[AnySlot, Tensor]
    difference: float | None = None
    start_score: float | None = None
    totals: Mapping[AnySlot, float] = field(default_factory=dict)
    findings: Mapping[AnySlot, dict[str, Any]] = field(default_factory=dict)


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
        while work := [(entry, index) for entry in sums for index in entry.turn()]:
            self._work(work)
            for entry in sums:
                entry.tell()
        return [entry.result() for entry in sums]

    def _work(self, work: list[tuple[_ItemSums, int]]) -> None:
        """Points that wait for nothing, as many at once as fit."""
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

    def _batch(self, segments: list[tuple[_ItemSums, range]]) -> None:
        draws = [entry.route.draw(indices) for entry, indices in segments]
        rows = [entry.item.row for (entry, indices) in segments for _ in indices]
        inputs = _joined([draw.inputs for draw in draws])
        start = None
        if self.passes.rule.paired:
            start = _joined([_per_point(draw.start, len(draw.inputs)) for draw in draws])
        moved = self._moved(draws)
        with self.budget.measured(len(inputs)):
            evaluated = self.passes.run(inputs, rows, start, moved)
        first = 0
        for (entry, indices), draw in zip(segments, draws, strict=True):
            entry.update(draw, evaluated, slice(first, first + len(indices)))
            first += len(indices)

    def _moved(self, draws: list[Draw]) -> Moved | None:
        """Where the points stand on their lines, for samplers that move an activation."""
        tap = self.stream.request.sampler.moved
        if tap is None:
            return None
        starts = [draw.start for draw in draws]
        if len(draws) > 1:
            starts = [_per_point(draw.start, len(draw.inputs)) for draw in draws]
        return Moved(tap, _joined(starts), _joined([draw.along for draw in draws]))


class _ItemSums:
    """The accumulators of one item in one stream."""

    def __init__(self, runner: Runner, item: Item) -> None:
        self.runner, self.item = runner, item
        self.route: Route = runner.stream.request.sampler.route(item)
        self.reducers = {slot: slot.reducer() for slot in runner.stream.slots}
        self._ends: tuple[Evaluated, Evaluated] | None = None
        self._difference = 0.0
        self._start = 0.0
        self._turns = iter(self.route.batches)
        self._drawn = self._seen = 0
        self._heard: list[tuple[Tensor, Tensor]] = []

    def turn(self) -> range:
        """The numbers of the points that can be drawn now; none at the end."""
        first = self._drawn
        self._drawn += next(self._turns, 0)
        return range(first, self._drawn)

    def tell(self) -> None:
        """Lets an adaptive route know of the points of its turn."""
        if self.route.told is None or not self._heard:
            return
        scores, gradients = zip(*self._heard, strict=True)
        self._heard = []
        self.route.told(torch.cat(scores), torch.cat(gradients))

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
                    masks=draw.masks,
                )
            )
        self._seen += len(draw.inputs)
        if self.route.told is not None:
            gradient = _settled(evaluated.gradients[INPUT][part])
            self._heard.append((evaluated.scores[part], gradient))

    def result(self) -> Reduced:
        """The sums; with the scores where the stream has ends."""
        tensors: dict[AnySlot, Tensor] = {
            slot: reducer.result() for slot, reducer in self.reducers.items()
        }
        if not self._has_scores:
            return Reduced(tensors)
        return Reduced(tensors, self._difference, self._start)

    @property
    def _has_scores(self) -> bool:
        stream = self.runner.stream
        known = stream.request.sampler.ends in ("shared", "visited")
        return stream.is_complete and (stream.request.rule.paired or known)

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
        elif self.runner.stream.request.sampler.ends == "visited":
            scores = evaluated.scores[part]
            self._start = float(scores[0]) if self._seen == 0 else self._start
            self._difference = float(scores[-1]) - self._start

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
