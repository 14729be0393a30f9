"""Passes for networks that see an image whole."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from voxplain.engine.memory import lone_volume_is_slow
from voxplain.engine.passes.base import Passes
from voxplain.engine.passes.result import PassResult
from voxplain.engine.rules import RuleMode
from voxplain.engine.taps import Changes, InterpolatedActivation, Tap, tapping
from voxplain.targets import WeightField


class WholePasses(Passes):
    """Points go through the network as whole images."""

    def _run(
        self,
        inputs: Tensor,
        rows: list[int],
        start: Tensor | None,
        interpolated: InterpolatedActivation | None,
    ) -> PassResult:
        if lone_volume_is_slow(inputs):
            self._copies = 2
            pair = None if start is None else _twice(start)
            both = interpolated.twice() if interpolated else None
            return self._run(_twice(inputs), rows * 2, pair, both).part(slice(1))
        bound = self.bound.rows(rows)
        reference = self._record(start, bound) if self.rule.paired else None
        inputs = self.leaf(inputs)
        under_rule = self.under_rule(inputs, reference.recording if reference else None)
        network = self.model.network
        changes = (
            interpolated.changes(network, self.model, interpolated.start) if interpolated else None
        )
        with tapping(network, self.taps, changes) as tapped, under_rule:
            output = self.model(inputs)
            if self.rebind is not None:
                bound = self.rebind(output.detach())
            explained = self._explained(output, tapped)
            scores = bound.score(explained.detach() if self.rule.starts_from_output else explained)
        places = self.tapped_values(inputs, tapped)
        if self.rule.starts_from_output:
            self.check_seen(explained, inputs)
            output_seed = self._output_seed(bound, explained)
            gradients = self.gradients(explained, places, output_seed, self.through_value(tapped))
        else:
            self.check_seen(scores, inputs)
            gradients = self.gradients(scores.sum(), places)
        return PassResult(
            scores=scores.detach(),
            start_scores=reference.scores if reference else None,
            gradients=self.settled(gradients),
            values=self.settled(places),
            start_values=reference.values if reference else {},
        )

    def _output_seed(self, bound: WeightField, explained: Tensor) -> Tensor:
        """What a seeded rule starts with, in place of the derivative of the score."""
        value = explained.detach()
        cotangent = self.rule.field(bound).cotangent(value)
        return self.rule.output_seed(cotangent, value).to(value.dtype)

    def _record(self, start: Tensor | None, bound: WeightField) -> _Reference:
        if start is None:
            raise ValueError("a paired rule needs references")
        self.notes.forwards += len(start)
        with torch.no_grad(), tapping(self.model.network, self.taps) as tapped:
            recording = self.rule.record()
            with recording:
                output = self.model(start)
                scores = bound.score(self._explained(output, tapped))
            return _Reference(recording, scores, self.settled(self.tapped_values(start, tapped)))

    def scores(self, inputs: Tensor, rows: list[int], changes: Changes | None = None) -> Tensor:
        """The score of each whole image."""
        if lone_volume_is_slow(inputs):
            return self.scores(_twice(inputs), rows * 2, changes)[:1]
        self.notes.forwards += len(inputs)
        taps = tuple(dict.fromkeys((*self.taps, *(changes or ()))))
        network = self.model.network
        with torch.inference_mode(), self.precise(), tapping(network, taps, changes) as tapped:
            output = self.model(inputs)
            bound = self.rebind(output) if self.rebind else self.bound.rows(rows)
            return bound.score(self._explained(output, tapped)).cpu()

    def _observe(self, inputs: Tensor, rows: list[int]) -> PassResult:
        if lone_volume_is_slow(inputs):
            return self._observe(_twice(inputs), rows * 2).part(slice(1))
        with tapping(self.model.network, self.taps) as tapped:
            output = self.model(inputs)
            bound = self.rebind(output) if self.rebind else self.bound.rows(rows)
            scores = bound.score(self._explained(output, tapped))
            return PassResult(scores, values=self.settled(self.tapped_values(inputs, tapped)))


@dataclass(frozen=True, eq=False)
class _Reference:
    recording: RuleMode
    scores: Tensor
    values: dict[Tap, Tensor]


def _twice(point: Tensor) -> Tensor:
    return torch.cat([point, point])
