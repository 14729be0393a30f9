"""Runs one gradient stream: points through the network in batches, into the sums of their image."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from operator import itemgetter

import torch
from torch import Tensor

from voxplain.engine.acceleration.shared_prefix import SharedPrefix
from voxplain.engine.context import Context
from voxplain.engine.execution.line_ends import LineEnds, values_at_ends
from voxplain.engine.execution.runner import Runner, StreamOutput
from voxplain.engine.execution.score_change import ScoreChange
from voxplain.engine.gradients.reducers import TapBatch, in_float32
from voxplain.engine.gradients.samplers import PointBatch, PointSequence
from voxplain.engine.memory import BackwardBudget, BatchBudget, in_batches
from voxplain.engine.passes.base import Passes
from voxplain.engine.passes.points import PassResult, Points
from voxplain.engine.requests import GradientRequest, Slot, Stream
from voxplain.engine.stream_io import StreamInput
from voxplain.engine.taps import INPUT, InterpolatedActivation
from voxplain.models.model import Offload

OFFLOADED = (
    "what the backward pass needs was kept in the memory of the CPU, which takes longer and "
    "changes no map"
)
"""Said of a stream whose points do not fit into the memory of the accelerator."""
RECOMPUTED = (
    "parts of the network ran again in the backward pass instead of being kept in memory, which "
    "takes longer and changes no map"
)
"""Said of a stream whose points do not fit into memory otherwise."""

Segment = tuple[int, range]
"""The number of an input, and the numbers of consecutive points of it."""


class GradientRunner(Runner):
    """One gradient stream of one network.

    Args:
        stream: What to run.
        passes: How points are evaluated.
        budget: How many at once.
        tick: Called with the number of points after each batch.
        scores: S of the images of the batch, where the stream runs on the images themselves.
        context: The network and the images.
    """

    def __init__(
        self,
        stream: Stream[GradientRequest],
        passes: Passes,
        budget: BatchBudget,
        tick: Callable[[int], None],
        scores: Sequence[float] | None,
        context: Context,
    ) -> None:
        self.stream, self.passes, self.budget, self.tick = stream, passes, budget, tick
        self.scores = scores
        self.redundancy = context.layout.redundancy if context.layout else 1.0
        self.sampler, self.paired = stream.request.sampler, stream.request.rule.paired
        complete = bool(stream.complete)
        self.has_scores = complete and (self.paired or self.sampler.ends != "none")
        self.taps_at_ends = any(
            slot.place != INPUT and slot.request.reducer().needs_ends for slot in stream.slots
        )
        self.scores_at_ends = complete and self.sampler.ends in ("shared", "each")
        self.reads_ends = not self.paired and (self.taps_at_ends or self.scores_at_ends)

    trial_passes = 3

    def trial(self, item: StreamInput) -> list[Tensor]:
        """Gradients at each place, of the first point, one in the middle, and the last one.

        None of a sampler whose points depend on the gradients before: small differences may grow.
        """
        points, batches = self.sampler.route(item), _Batches([self], [], None)
        if points.feedback is not None:
            return []
        last = points.count - 1
        found: list[PassResult] = []
        for number in sorted({0, last // 2, last}):
            in_batches(1, self.budget, partial(batches.alone, points, number, item, found))
        return [
            torch.cat([in_float32(each.gradients[place]).cpu().flatten() for each in found])
            for place in self.stream.places
        ]

    @classmethod
    def batch_budget(
        cls, device: torch.device, limit: int | None, image: Tensor, offload: Offload
    ) -> BatchBudget:
        """By what autograd saves for one point."""
        return BackwardBudget(device, limit, image.nbytes, offload)

    @classmethod
    def run(
        cls,
        runners: Sequence[GradientRunner],
        inputs: Sequence[StreamInput],
        prefix: SharedPrefix | None = None,
    ) -> list[list[StreamOutput]]:
        """The reduced tensors of each input, per network.

        Points are drawn once and go through all networks. An adaptive sampler draws what its
        network makes it draw: such networks run one after the other.
        """
        networks = [[_Accumulators(runner, item) for item in inputs] for runner in runners]
        if len(runners) > 1 and any(sums.is_adaptive for sums in networks[0]):
            return [cls.run([runner], inputs)[0] for runner in runners]
        batches = _Batches(runners, networks, prefix)
        while work := [(n, point) for n, sums in enumerate(networks[0]) for point in sums.turn()]:
            in_batches(len(work), runners[0].budget, batches.of(work))
            for sums in networks[0]:
                sums.give_feedback()
        return [[sums.result() for sums in of_network] for of_network in networks]

    def finish(self, images: int) -> None:
        """Passes are those planned, or the mean over the images where their number is open.

        Of conserved relevance the log says where it went.
        """
        log, conservation = self.passes.log, self.passes.conservation
        for said, holds in ((OFFLOADED, log.offloaded), (RECOMPUTED, log.recomputed)):
            if holds:
                log.remarks[said] = None
        log.spent = log.passes // max(images, 1) if self.sampler.open_ended else self.planned
        if conservation is not None:
            log.conservation = conservation.facts(log.passes)
            if remark := conservation.remark():
                log.remarks[remark] = None


class _Batches:
    """Points of several inputs through several networks.

    Args:
        runners: One per network.
        networks: Per network, the sums of the inputs.
        prefix: The modules that the networks share.
    """

    def __init__(
        self,
        runners: Sequence[GradientRunner],
        networks: Sequence[Sequence[_Accumulators]],
        prefix: SharedPrefix | None,
    ) -> None:
        self._runners, self._networks, self._prefix = runners, networks, prefix

    def of(self, work: list[tuple[int, int]]) -> Callable[[range], None]:
        """Runs points of a list of input numbers and point numbers, by their places in it."""

        def run(places: range) -> None:
            is_last = places.stop == len(work)
            self._run(_segments(work[places.start : places.stop]), measure=not is_last)
            for runner in self._runners:
                runner.tick(len(places))

        return run

    def _run(self, segments: list[Segment], measure: bool) -> None:
        first = self._networks[0]
        drawn = [first[number].points.draw(indices) for number, indices in segments]
        rows = [first[number].item.row for number, indices in segments for _ in indices]
        results = self._pass_results(self._points(drawn, rows), measure)
        for of_network, result in zip(self._networks, results, strict=True):
            done = 0
            for (number, indices), points in zip(segments, drawn, strict=True):
                of_network[number].update(points, result, slice(done, done + len(indices)))
                done += len(indices)

    def alone(
        self,
        points: PointSequence,
        number: int,
        item: StreamInput,
        found: list[PassResult],
        _: range,
    ) -> None:
        """Runs one point of an input in the only network, and adds what comes of it."""
        drawn = points.draw(range(number, number + 1))
        found += self._pass_results(self._points([drawn], [item.row]), measure=False)

    def _pass_results(self, points: Points, measure: bool) -> list[PassResult]:
        """The points in every network; nothing is summed up before all of them ran."""
        results, nothing = [], contextlib.nullcontext()
        with self._prefix.batch() if self._prefix else nothing:
            for runner in self._runners:
                budget, passes = runner.budget, runner.passes
                spared = budget.spared
                passes.log.offloaded, passes.log.recomputed = spared.offloads, spared.recomputes
                with budget.saving(len(points.inputs)) if measure or spared.acts else nothing:
                    results.append(passes.run(points))
        return results

    def _points(self, drawn: list[PointBatch], rows: list[int]) -> Points:
        inputs, start = _joined([points.inputs for points in drawn]), None
        if self._runners[0].paired:
            start = _joined([_per_point(points.start, len(points.inputs)) for points in drawn])
        return Points(inputs, rows, start, self._interpolated(drawn))

    def _interpolated(self, drawn: list[PointBatch]) -> InterpolatedActivation | None:
        """Where the points stand on their lines, for samplers that move an activation."""
        tap = self._runners[0].sampler.interpolated
        if tap is None:
            return None
        starts = [points.start for points in drawn]
        if len(drawn) > 1:
            starts = [_per_point(points.start, len(points.inputs)) for points in drawn]
        along = _joined([points.along for points in drawn])
        return InterpolatedActivation(tap, _joined(starts), along)


class _Accumulators:
    """The sums of one input in one stream.

    Args:
        runner: The stream and the network.
        item: The image, or a noisy copy of it.
    """

    def __init__(self, runner: GradientRunner, item: StreamInput) -> None:
        self.runner, self.item = runner, item
        self._ends = LineEnds(runner, item) if runner.reads_ends else None
        self._change: ScoreChange | None = None
        if runner.has_scores:
            in_layer = runner.sampler.interpolated is not None
            self._change = ScoreChange(runner.sampler.ends, in_layer)
        self._start_sums()
        self._begin(runner.sampler.route(item))

    def _start_sums(self) -> None:
        slots = self.runner.stream.slots
        self.reducers = {slot: slot.request.reducer() for slot in slots}
        self._weight = 0.0
        self._devices: dict[Slot[GradientRequest], torch.device] = {}

    def _begin(self, points: PointSequence) -> None:
        """Starts with a sequence of points; their numbers begin with 0."""
        self.points, self._drawn = points, 0
        self._turns = iter((points.count,) if points.feedback is None else points.rounds)
        self._since_feedback: list[tuple[Tensor, Tensor]] = []

    @property
    def is_adaptive(self) -> bool:
        """Whether the network decides which points are drawn."""
        return self.points.feedback is not None or self.points.finer is not None

    def turn(self) -> range:
        """The numbers of the points that can be drawn now; none at the end."""
        count = next(self._turns, 0)
        if not count and self.points.finer is not None:
            self._refine(self.points.finer)
            count = next(self._turns, 0)
        first = self._drawn
        self._drawn += count
        return range(first, self._drawn)

    def _refine(self, finer: Callable[[], PointSequence]) -> None:
        """Goes on with finer points, unless the sums are those of the score."""
        if self._change is None or self._change.is_met_by(self._sums()):
            self.points = replace(self.points, finer=None)
            return
        points = finer()
        if points.restarts:
            self._start_sums()
            self._change.start_again()
        self._begin(points)

    def give_feedback(self) -> None:
        """Tells an adaptive sampler the scores and gradients of the points of its turn."""
        if self.points.feedback is None or not self._since_feedback:
            return
        scores, gradients = zip(*self._since_feedback, strict=True)
        self._since_feedback = []
        self.points.feedback(torch.cat(scores), torch.cat(gradients))

    def update(self, points: PointBatch, result: PassResult, rows: slice) -> None:
        """Feeds every reducer with the points of this input in a batch."""
        ends = self._ends.of(points) if self._ends else None
        if self._change is not None:
            self._change.add(points, result, rows, ends)
        for slot, reducer in self.reducers.items():
            start, end = None, None
            if reducer.needs_ends:
                start, end = values_at_ends(slot.place, points, result, rows, ends)
            gradient = result.gradients[slot.place]
            device = self._devices.setdefault(slot, gradient.device)
            reducer.update(
                TapBatch(
                    value=in_float32(result.values[slot.place][rows]).to(device),
                    gradient=in_float32(gradient[rows]).to(device),
                    weights=points.weights.to(device),
                    start=None if start is None else start.to(device),
                    end=None if end is None else end.to(device),
                    along=None if points.along is None else points.along.to(device),
                    redundancy=1.0 if slot.place == INPUT else self.runner.redundancy,
                    masks=points.masks,
                )
            )
        self._weight += float(points.weights.sum())
        if self.points.feedback is not None:
            gradient = in_float32(result.gradients[INPUT][rows])
            self._since_feedback.append((result.scores[rows], gradient))

    def result(self) -> StreamOutput:
        """The sums; with the scores where the stream has ends."""
        if self._change is None:
            return StreamOutput(self._sums())
        return StreamOutput(self._sums(), self._change.difference, self._change.start)

    def _sums(self) -> dict[Slot[GradientRequest], Tensor]:
        device = self.item.image.device
        sums = {slot: reducer.result().to(device) for slot, reducer in self.reducers.items()}
        if not self.points.relative_weights:
            return sums
        return {slot: tensor / self._weight for slot, tensor in sums.items()}


def _segments(work: list[tuple[int, int]]) -> list[Segment]:
    """Consecutive work of one input as ranges of point numbers."""
    points = {number: [at for _, at in pairs] for number, pairs in groupby(work, itemgetter(0))}
    return [(number, range(at[0], at[-1] + 1)) for number, at in points.items()]


def _joined(parts: list[Tensor | None]) -> Tensor:
    tensors = [part for part in parts if part is not None]
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def _per_point(start: Tensor | None, count: int) -> Tensor | None:
    return None if start is None else start.expand(count, *start.shape[1:])
