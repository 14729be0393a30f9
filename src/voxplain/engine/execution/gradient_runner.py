"""Runs one stream: points through the network in batches, into the accumulators of their image."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from voxplain.engine.acceleration.shared_prefix import SharedPrefix
from voxplain.engine.execution.accumulators import Accumulators, StreamOutput
from voxplain.engine.gradients.samplers import PointBatch
from voxplain.engine.item import StreamInput
from voxplain.engine.memory import BackwardBudget, ran_out_of_memory
from voxplain.engine.passes.base import Passes
from voxplain.engine.passes.result import PassResult
from voxplain.engine.streams import Stream
from voxplain.engine.taps import InterpolatedActivation
from voxplain.errors import VoxplainError

Segment = tuple[int, range]
"""The number of an item, and numbers of consecutive points of it."""


class GradientRunner:
    """One stream of one network, for batches of items.

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
        budget: BackwardBudget,
        tick: Callable[[int], None],
        scores: Sequence[float] | None = None,
        redundancy: float = 1.0,
    ) -> None:
        self.stream, self.passes, self.budget, self.tick = stream, passes, budget, tick
        self.scores, self.redundancy = scores, redundancy

    def sums(self, item: StreamInput) -> Accumulators:
        """Empty accumulators for an item."""
        return Accumulators(self.stream, self.passes, item, self.scores, self.redundancy)


def reduced(
    runners: Sequence[GradientRunner],
    items: Sequence[StreamInput],
    prefix: SharedPrefix | None = None,
) -> list[list[StreamOutput]]:
    """The reduced tensors of each item, for one network or several side by side.

    Points are drawn once and go through all networks. An adaptive route draws what its network
    makes it draw: such networks run one after the other.

    Args:
        runners: The same stream, one runner per network.
        items: The images.
        prefix: What the networks share.
    """
    networks = [[runner.sums(item) for item in items] for runner in runners]
    if len(runners) > 1 and any(entry.route.feedback is not None for entry in networks[0]):
        return [reduced([runner], items)[0] for runner in runners]
    batches = _Batches(runners, networks, prefix)
    while work := [(n, index) for n, entry in enumerate(networks[0]) for index in entry.turn()]:
        batches.work(work)
        for entry in networks[0]:
            entry.tell()
    return [[entry.result() for entry in entries] for entries in networks]


class _Batches:
    """Points of several items through several networks.

    Args:
        runners: One per network; the first one decides how many points go at once.
        networks: Per network, the accumulators of the items.
        prefix: What the networks share.
    """

    def __init__(
        self,
        runners: Sequence[GradientRunner],
        networks: Sequence[Sequence[Accumulators]],
        prefix: SharedPrefix | None,
    ) -> None:
        self._runners, self._networks, self._prefix = runners, networks, prefix
        self._budget = runners[0].budget

    def work(self, work: list[tuple[int, int]]) -> None:
        """Points that wait for nothing, as many at once as fit."""
        done = 0
        while done < len(work):
            part = work[done : done + self._budget.size]
            try:
                self._batch(_segments(part))
            except RuntimeError as error:
                if isinstance(error, VoxplainError) or not ran_out_of_memory(error):
                    raise
                if not self._budget.halve():
                    raise
                continue
            done += len(part)
            for runner in self._runners:
                runner.tick(len(part))

    def _batch(self, segments: list[Segment]) -> None:
        first = self._networks[0]
        draws = [first[number].route.draw(indices) for number, indices in segments]
        rows = [first[number].item.row for number, indices in segments for _ in indices]
        for entries, evaluated in zip(self._networks, self._evaluated(draws, rows), strict=True):
            done = 0
            for (number, indices), draw in zip(segments, draws, strict=True):
                entries[number].update(draw, evaluated, slice(done, done + len(indices)))
                done += len(indices)

    def _evaluated(self, draws: list[PointBatch], rows: list[int]) -> list[PassResult]:
        """The points of a batch in every network; nothing is summed up before all of them ran."""
        inputs = _joined([draw.inputs for draw in draws])
        start = None
        if self._runners[0].passes.rule.paired:
            start = _joined([_per_point(draw.start, len(draw.inputs)) for draw in draws])
        interpolated, found = self._interpolated(draws), []
        with self._prefix.batch() if self._prefix else contextlib.nullcontext():
            for runner in self._runners:
                with runner.budget.measured(len(inputs)):
                    found.append(runner.passes.run(inputs, rows, start, interpolated))
        return found

    def _interpolated(self, draws: list[PointBatch]) -> InterpolatedActivation | None:
        """Where the points stand on their lines, for samplers that move an activation."""
        tap = self._runners[0].stream.request.sampler.interpolated
        if tap is None:
            return None
        starts = [draw.start for draw in draws]
        if len(draws) > 1:
            starts = [_per_point(draw.start, len(draw.inputs)) for draw in draws]
        return InterpolatedActivation(tap, _joined(starts), _joined([draw.along for draw in draws]))


def _segments(part: list[tuple[int, int]]) -> list[Segment]:
    """Consecutive work of one item as ranges of point numbers."""
    found: list[Segment] = []
    for number, index in part:
        if found and found[-1][0] == number:
            found[-1] = (number, range(found[-1][1].start, index + 1))
        else:
            found.append((number, range(index, index + 1)))
    return found


def _joined(parts: list[Tensor | None]) -> Tensor:
    tensors = [part for part in parts if part is not None]
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def _per_point(start: Tensor | None, count: int) -> Tensor | None:
    return None if start is None else start.expand(count, *start.shape[1:])
