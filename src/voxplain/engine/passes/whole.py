"""Passes for networks that see an image whole."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from voxplain.engine.passes.base import Passes
from voxplain.engine.passes.points import PassResult, Points
from voxplain.engine.rules import RuleMode
from voxplain.engine.taps import Changes, Tap, tapping
from voxplain.models.model import lone_volume_is_slow
from voxplain.targets import WeightField


class WholePasses(Passes):
    """Points go through the network as whole images."""

    def _with_companion(self, points: Points) -> Points:
        alone = self.model.behavior.one_by_one or not lone_volume_is_slow(points.inputs)
        return points if alone else points.repeated()

    def _run(self, points: Points) -> PassResult:
        bound = self.bound.rows(points.rows)
        reference = self._record(points.start, bound) if self.rule.paired else None
        inputs = self.leaf(points.inputs.detach().clone())
        rule = self.under_rule(inputs, reference.recording if reference else None)
        network, changes = self.model.network, None
        if points.interpolated is not None:
            moving = points.interpolated
            changes = moving.changes(network, self.model, moving.start)
        with tapping(network, self.taps, changes) as tapped, rule:
            output = self.model(inputs)
            if self.rebind is not None:
                bound = self.rebind(output.detach())
            explained = self._explained(output, tapped)
            from_output = self.rule.starts_from_output
            scores = bound.score(explained.detach() if from_output else explained)
        places = self.tapped_values(inputs, tapped)
        if from_output:
            self.check_seen(explained, inputs)
            seed = self._output_seed(bound, explained)
            gradients = self.gradients(explained, places, seed, self.through_value(tapped))
        else:
            self.check_seen(scores, inputs)
            gradients = self.gradients(scores.sum(), places)
        return PassResult(
            scores=scores.detach(),
            start_scores=reference.scores if reference else None,
            gradients=self.detached(gradients),
            values=self.detached(places),
            start_values=reference.values if reference else {},
        )

    def _output_seed(self, bound: WeightField, explained: Tensor) -> Tensor:
        """The seed of the backward pass at the output, in place of dS/dF."""
        value = explained.detach()
        cotangent = self.rule.seed_field(bound).cotangent(value)
        return self.rule.output_seed(cotangent, value)

    def _record(self, start: Tensor | None, bound: WeightField) -> _Reference:
        if start is None:
            raise ValueError("a paired rule needs references")
        self.log.forwards += len(start)
        with torch.no_grad(), tapping(self.model.network, self.taps) as tapped:
            recording = self.rule.record()
            with recording:
                output = self.model(start)
                scores = bound.score(self._explained(output, tapped))
            values = self.detached(self.tapped_values(start, tapped))
            return _Reference(recording, scores, values)

    def _observe(self, points: Points) -> PassResult:
        with tapping(self.model.network, self.taps) as tapped:
            output = self.model(points.inputs)
            bound = self.rebind(output) if self.rebind else self.bound.rows(points.rows)
            scores = bound.score(self._explained(output, tapped))
            values = self.detached(self.tapped_values(points.inputs, tapped))
            return PassResult(scores, values=values)

    def _scores(self, points: Points, changes: Changes | None) -> Tensor:
        self.log.forwards += len(points.inputs)
        taps = tuple(dict.fromkeys((*self.taps, *(changes or ()))))
        with tapping(self.model.network, taps, changes) as tapped:
            output = self.model(points.inputs)
            bound = self.rebind(output) if self.rebind else self.bound.rows(points.rows)
            return bound.score(self._explained(output, tapped)).cpu()


@dataclass(frozen=True, eq=False)
class _Reference:
    recording: RuleMode
    scores: Tensor
    values: dict[Tap, Tensor]
