"""The accumulators of one image in one stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from voxplain.engine.gradients.reducers import TapBatch
from voxplain.engine.gradients.samplers import PointBatch, PointSequence
from voxplain.engine.item import StreamInput
from voxplain.engine.passes.base import Passes
from voxplain.engine.passes.result import INPUT, PassResult
from voxplain.engine.streams import AnySlot, Slot, Stream


@dataclass(frozen=True, eq=False)
class StreamOutput:
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


class Accumulators:
    """The accumulators of one item in one stream.

    Args:
        stream: Whose slots are filled.
        passes: How the ends of lines are evaluated.
        item: The image.
        scores: S of the images of the batch, where the stream runs on the images themselves.
        redundancy: How often overlapping windows show a position of a layer.
    """

    def __init__(
        self,
        stream: Stream,
        passes: Passes,
        item: StreamInput,
        scores: Sequence[float] | None,
        redundancy: float,
    ) -> None:
        self.stream, self.passes, self.item = stream, passes, item
        self.scores, self.redundancy = scores, redundancy
        self.route: PointSequence = stream.request.sampler.route(item)
        self.reducers = {slot: slot.reducer() for slot in stream.slots}
        self._ends: tuple[PassResult, PassResult] | None = None
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
        if self.route.feedback is None or not self._heard:
            return
        scores, gradients = zip(*self._heard, strict=True)
        self._heard = []
        self.route.feedback(torch.cat(scores), torch.cat(gradients))

    def update(self, draw: PointBatch, evaluated: PassResult, part: slice) -> None:
        """Feeds every reducer with the points of this item in a batch."""
        ends = self._at_ends(draw)
        self._add_scores(draw, evaluated, part, ends)
        for slot, reducer in self.reducers.items():
            start, end = self._line(slot, draw, evaluated, part, ends)
            reducer.update(
                TapBatch(
                    value=_settled(evaluated.values[slot.place][part]),
                    gradient=_settled(evaluated.gradients[slot.place][part]),
                    weights=draw.weights,
                    start=start,
                    end=end,
                    along=draw.along,
                    redundancy=1.0 if slot.place == INPUT else self.redundancy,
                    masks=draw.masks,
                )
            )
        self._seen += len(draw.inputs)
        if self.route.feedback is not None:
            gradient = _settled(evaluated.gradients[INPUT][part])
            self._heard.append((evaluated.scores[part], gradient))

    def result(self) -> StreamOutput:
        """The sums; with the scores where the stream has ends."""
        tensors: dict[AnySlot, Tensor] = {
            slot: reducer.result() for slot, reducer in self.reducers.items()
        }
        if not self._has_scores:
            return StreamOutput(tensors)
        return StreamOutput(tensors, self._difference, self._start)

    @property
    def _has_scores(self) -> bool:
        stream = self.stream
        known = stream.request.sampler.ends in ("shared", "visited")
        return stream.is_complete and (stream.request.rule.paired or known)

    def _at_ends(self, draw: PointBatch) -> tuple[PassResult, PassResult] | None:
        """Activations and scores where the lines begin and end: once, or for each point."""
        stream = self.stream
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

    def _observed_ends(self, start: Tensor, end: Tensor) -> tuple[PassResult, PassResult]:
        """Both ends in one call; the score of the image itself is known from binding."""
        scores, row = self.scores, self.item.row
        if scores is not None and not self.stream.needs_taps_at_ends:
            known = PassResult(torch.tensor([scores[row]], dtype=torch.float64))
            return self.passes.observe(start, [row] * len(start)), known
        points = torch.cat([start, end])
        both = self.passes.observe(points, [row] * len(points))
        return both.part(slice(len(start))), both.part(slice(len(start), None))

    def _add_scores(
        self,
        draw: PointBatch,
        evaluated: PassResult,
        part: slice,
        ends: tuple[PassResult, PassResult] | None,
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
        elif self.stream.request.sampler.ends == "visited":
            scores = evaluated.scores[part]
            self._start = float(scores[0]) if self._seen == 0 else self._start
            self._difference = float(scores[-1]) - self._start

    def _line(
        self,
        slot: Slot,
        draw: PointBatch,
        evaluated: PassResult,
        part: slice,
        ends: tuple[PassResult, PassResult] | None,
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


def _settled(values: Tensor) -> Tensor:
    """Half precision is for the network; sums run in float32."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
