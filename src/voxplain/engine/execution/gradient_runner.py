"""Runs one gradient stream: points through the network in batches, into the sums of their image."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from voxplain.engine.acceleration.shared_prefix import SharedPrefix
from voxplain.engine.context import Context
from voxplain.engine.execution.runner import Runner, StreamOutput
from voxplain.engine.gradients.reducers import TapBatch
from voxplain.engine.gradients.samplers import PointBatch
from voxplain.engine.memory import BackwardBudget, BatchBudget, in_batches
from voxplain.engine.passes.base import Passes
from voxplain.engine.passes.points import PassResult, Points
from voxplain.engine.requests import GradientRequest, Slot, Stream
from voxplain.engine.stream_io import StreamInput
from voxplain.engine.taps import INPUT, InterpolatedActivation

Segment = tuple[int, range]
"""The number of an input, and the numbers of consecutive points of it."""
Ends = tuple[PassResult, PassResult]
"""Activations and scores where the lines through the points start and end."""


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

    @classmethod
    def batch_budget(cls, device: torch.device, limit: int | None, image: Tensor) -> BatchBudget:
        """By what autograd saves for one point."""
        return BackwardBudget(device, limit, image.nbytes)

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
        if len(runners) > 1 and any(sums.points.feedback is not None for sums in networks[0]):
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

    def _pass_results(self, points: Points, measure: bool) -> list[PassResult]:
        """The points in every network; nothing is summed up before all of them ran."""
        results, nothing = [], contextlib.nullcontext()
        with self._prefix.batch() if self._prefix else nothing:
            for runner in self._runners:
                with runner.budget.measured(len(points.inputs)) if measure else nothing:
                    results.append(runner.passes.run(points))
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
        self.points = runner.sampler.route(item)
        self.reducers = {slot: slot.request.reducer() for slot in runner.stream.slots}
        self._ends: Ends | None = None
        self._origins: dict[int, float] = {}
        self._difference = self._start = 0.0
        points = self.points
        self._turns = iter((points.count,) if points.feedback is None else points.rounds)
        self._drawn = self._seen = 0
        self._weight = 0.0
        self._since_feedback: list[tuple[Tensor, Tensor]] = []

    def turn(self) -> range:
        """The numbers of the points that can be drawn now; none at the end."""
        first = self._drawn
        self._drawn += next(self._turns, 0)
        return range(first, self._drawn)

    def give_feedback(self) -> None:
        """Tells an adaptive sampler the scores and gradients of the points of its turn."""
        if self.points.feedback is None or not self._since_feedback:
            return
        scores, gradients = zip(*self._since_feedback, strict=True)
        self._since_feedback = []
        self.points.feedback(torch.cat(scores), torch.cat(gradients))

    def update(self, points: PointBatch, result: PassResult, rows: slice) -> None:
        """Feeds every reducer with the points of this input in a batch."""
        ends = self._at_ends(points)
        if self.runner.has_scores:
            self._add_scores(points, result, rows, ends)
        for slot, reducer in self.reducers.items():
            start, end = None, None
            if reducer.needs_ends:
                start, end = self._line(slot, points, result, rows, ends)
            reducer.update(
                TapBatch(
                    value=_in_float32(result.values[slot.place][rows]),
                    gradient=_in_float32(result.gradients[slot.place][rows]),
                    weights=points.weights,
                    start=start,
                    end=end,
                    along=points.along,
                    redundancy=1.0 if slot.place == INPUT else self.runner.redundancy,
                    masks=points.masks,
                )
            )
        self._seen += len(points.inputs)
        self._weight += float(points.weights.sum())
        if self.points.feedback is not None:
            gradient = _in_float32(result.gradients[INPUT][rows])
            self._since_feedback.append((result.scores[rows], gradient))

    def result(self) -> StreamOutput:
        """The sums; with the scores where the stream has ends."""
        tensors = {slot: reducer.result() for slot, reducer in self.reducers.items()}
        if self.points.relative_weights:
            tensors = {slot: tensor / self._weight for slot, tensor in tensors.items()}
        if not self.runner.has_scores:
            return StreamOutput(tensors)
        return StreamOutput(tensors, self._difference, self._start)

    def _at_ends(self, points: PointBatch) -> Ends | None:
        """Activations and scores at the ends of the lines: once, or for each point."""
        runner = self.runner
        if runner.paired or points.start is None or points.end is None:
            return None
        if not runner.taps_at_ends and not runner.scores_at_ends:
            return None
        if runner.sampler.ends != "shared":
            return self._ends_of_each(points, points.start, points.end)
        if self._ends is None:
            self._ends = self._observed_ends(points.start, points.end)
        return self._ends

    def _observed_ends(self, start: Tensor, end: Tensor) -> Ends:
        """Both ends in one call; the score of the image itself is known from binding."""
        observe, scores, row = self.runner.passes.observe, self.runner.scores, self.item.row
        if scores is not None and not self.runner.taps_at_ends:
            image = PassResult(torch.tensor([scores[row]], dtype=torch.float64))
            return observe(Points(start, [row] * len(start))), image
        both = torch.cat([start, end])
        result = observe(Points(both, [row] * len(both)))
        return result.part(slice(len(start))), result.part(slice(len(start), None))

    def _ends_of_each(self, points: PointBatch, start: Tensor, end: Tensor) -> Ends:
        """Both ends of every line; scores alone where no layer is read, each start once."""
        if self.runner.taps_at_ends or len(points.origins) < len(end):
            return self._observed_ends(start, end)
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

    def _add_scores(
        self, points: PointBatch, result: PassResult, rows: slice, ends: Ends | None
    ) -> None:
        scores = result.scores[rows]
        if result.start_scores is not None:
            weights = points.weights.to(scores)
            start = float((weights * result.start_scores[rows]).sum())
            self._difference += float((weights * scores).sum()) - start
            self._start += start
        elif ends is not None and self.runner.sampler.ends == "each":
            first, last = (end.scores.double().cpu() for end in ends)
            self._start += float((points.weights * first).sum())
            self._difference += float((points.weights * (last - first)).sum())
        elif ends is not None:
            self._start = float(ends[0].scores[0])
            self._difference = float(ends[1].scores[0]) - self._start
        elif self.runner.sampler.ends == "visited":
            self._start = float(scores[0]) if self._seen == 0 else self._start
            self._difference = float(scores[-1]) - self._start

    def _line(
        self,
        slot: Slot[GradientRequest],
        points: PointBatch,
        result: PassResult,
        rows: slice,
        ends: Ends | None,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Values at both ends of the lines at a place."""
        place = slot.place
        if place == INPUT:
            return points.start, points.end
        if result.start_values:
            start, end = result.start_values[place][rows], result.values[place][rows]
            return _in_float32(start), _in_float32(end)
        if ends is None:
            return None, None
        return _in_float32(ends[0].values[place]), _in_float32(ends[1].values[place])


def _segments(work: list[tuple[int, int]]) -> list[Segment]:
    """Consecutive work of one input as ranges of point numbers."""
    segments: list[Segment] = []
    for number, point in work:
        if segments and segments[-1][0] == number:
            segments[-1] = (number, range(segments[-1][1].start, point + 1))
        else:
            segments.append((number, range(point, point + 1)))
    return segments


def _joined(parts: list[Tensor | None]) -> Tensor:
    tensors = [part for part in parts if part is not None]
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def _per_point(start: Tensor | None, count: int) -> Tensor | None:
    return None if start is None else start.expand(count, *start.shape[1:])


def _in_float32(values: Tensor) -> Tensor:
    """Half precision is for the network; sums run in float32."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
