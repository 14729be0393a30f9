"""Passes for networks that see a volume in windows, exact for the whole-volume score.

A pass without gradient assembles the blended output F where the link needs it; dS/dF is taken
once; then each window adds the gradient of its own output against dS/dF times its blending
weight. The sum is the gradient of the whole-volume S, with one batch of windows in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from voxplain.engine.passes.base import Arrange, Passes
from voxplain.engine.passes.points import PassResult, Points
from voxplain.engine.rules import Rule, RuleMode
from voxplain.engine.taps import INPUT, Changes, InterpolatedActivation, Tap, tapping
from voxplain.errors import TargetError
from voxplain.models.model import Model
from voxplain.models.windowed_output import dense
from voxplain.targets import WeightField


class WindowedPasses(Passes):
    """Points are whole volumes, seen in windows; layers are stacks of their windows.

    Activations and gradients of a tapped layer come back as ``(k, K, windows, *cells)``: the
    windows are one more axis of positions.
    """

    in_windows: ClassVar[bool] = True

    def __init__(
        self,
        model: Model,
        rule: Rule,
        bound: WeightField,
        places: tuple[Tap, ...],
        arrange: Arrange | None = None,
        rebind: Callable[[Tensor], WeightField] | None = None,
        spacing: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__(model, rule, bound, places, arrange, rebind)
        if bound.layer is not None:
            raise TargetError(
                f"a unit of layer {bound.layer!r} appears once per window; explain it on one "
                "window (a model without window=) instead"
            )
        self.spacing = spacing

    def _run(self, points: Points) -> PassResult:
        moving = points.interpolated
        if moving is not None and (self.rebind or not self.bound.is_linear):
            raise TargetError(
                "a path through a layer of a network with windows needs a target on raw scores: "
                "probabilities of the blended output depend on all windows at once"
            )
        starts: Iterable[Tensor | None] = [None] * len(points.inputs)
        if points.start is not None and self.rule.paired:
            starts = points.start
        volumes = zip(points.inputs, points.rows, starts, strict=True)
        return PassResult.joined(
            [
                _OneVolume(
                    self, image, row, reference, moving.point(index) if moving else None
                ).run()
                for index, (image, row, reference) in enumerate(volumes)
            ]
        )

    def _observe(self, points: Points) -> PassResult:
        volumes = zip(points.inputs, points.rows, strict=True)
        return PassResult.joined(
            [_OneVolume(self, image, row, None).observe() for image, row in volumes]
        )

    def _scores(self, points: Points, changes: Changes | None) -> Tensor:
        scores = []
        with tapping(self.model.network, tuple(changes or ()), changes):
            for image, row in zip(points.inputs, points.rows, strict=True):
                output = self.volume_output(image)
                bound = self.rebind(output) if self.rebind else self.bound.rows([row])
                scores.append(bound.score(output).cpu())
        return torch.cat(scores)

    def volume_output(self, image: Tensor) -> Tensor:
        """The blended output ``(1, K, *cells)`` of one volume."""
        self.log.forwards += 1
        return self.model.output(image[None], self.spacing)


class _OneVolume:
    """One point of a windowed stream: the loop over its windows."""

    def __init__(
        self,
        passes: WindowedPasses,
        image: Tensor,
        row: int,
        reference: Tensor | None,
        interpolated: InterpolatedActivation | None = None,
    ) -> None:
        layout = passes.model.layout(image, passes.spacing)
        if layout is None:
            raise ValueError("the model has no window")
        self.passes, self.layout, self.image = passes, layout, image
        self.bound = passes.bound.rows([row])
        if passes.rebind is not None:
            self.bound = passes.rebind(passes.volume_output(image))
        self.padded = layout.pad(image)
        self.start = reference
        self.reference = layout.pad(reference) if reference is not None else None
        self.interpolated = interpolated
        self.score = self.start_score = 0.0

    def run(self) -> PassResult:
        passes = self.passes
        cotangent = self._cotangent()
        gradient = torch.zeros_like(self.padded)
        layers = _Layers()
        for positions in self.layout.batches(self.passes.model.windows_at_once):
            part = self.layout.outputs.cut(cotangent, positions)
            part = part * self.layout.outputs.blend_weights(positions, part)
            if not passes.taps and not bool(part.any()):
                continue
            places, gradients, starts = self._windows(positions, part)
            if INPUT in gradients:
                for position, values in zip(positions, gradients[INPUT], strict=True):
                    gradient[self.layout.region(position)] += values
            layers.add(passes.detached(places), passes.detached(gradients), starts)
        return self._evaluated(gradient, layers)

    def observe(self) -> PassResult:
        layers = _Layers()
        at_once = self.passes.model.windows_at_once
        for positions in self.layout.batches(at_once) if self.passes.taps else ():
            windows = self.layout.cut(self.padded, positions)
            with tapping(self.passes.model.network, self.passes.taps) as tapped:
                dense(self.passes.model, windows)
                layers.add(self.passes.detached(self.passes.tapped_values(windows, tapped)), {}, {})
        score = self.bound.score(self.passes.volume_output(self.image))
        return PassResult(score, values={**layers.values(), INPUT: self.image[None]})

    def _cotangent(self) -> Tensor:
        """dS/dF, ``(K, *outputs.grid)``; also the scores of nonlinear links."""
        field = self.passes.rule.seed_field(self.bound)
        terms = field.terms
        if field.is_linear:
            self.score = self.start_score = float(self.bound.offset[0])
            return self.layout.embed(
                sum((term.weights[0] for term in terms[1:]), terms[0].weights[0])
            )
        output = self.passes.volume_output(self.image)
        if not self.passes.rule.paired or self.reference is None:
            self.score = float(self.bound.score(output))
            return self.layout.embed(field.cotangent(output)[0])
        return self.layout.embed(self._paired_cotangent(output)[0])

    def _paired_cotangent(self, output: Tensor) -> Tensor:
        """Multipliers of the link alone, between the two blended outputs."""
        if self.start is None:
            raise ValueError("a paired rule needs references")
        rule = self.passes.rule
        start = self.passes.volume_output(self.start)
        recording = rule.record()  # of the link alone: the windows would fill the memory
        with torch.no_grad(), recording:
            self.start_score = float(self.bound.score(start))
        leaf = output.detach().requires_grad_(True)
        with rule.replay(recording):
            score = self.bound.score(leaf)
        self.score = float(score.detach())
        return torch.autograd.grad(score.sum(), leaf)[0]

    def _windows(
        self, positions: tuple[tuple[int, ...], ...], cotangent: Tensor
    ) -> tuple[dict[Tap, Tensor], dict[Tap, Tensor], dict[Tap, Tensor]]:
        passes = self.passes
        recording, starts = self._record(positions, cotangent)
        windows = passes.leaf(self.layout.cut(self.padded, positions))
        network, changes = passes.model.network, self._changes(positions)
        image = self.image[None]
        with tapping(network, passes.taps, changes) as tapped, passes.under_rule(image, recording):
            output = dense(passes.model, windows)
        passes.check_seen(output, windows)
        if self.bound.is_linear:
            self.score += float((output.detach() * cotangent).sum(dtype=torch.float64))
        places = passes.tapped_values(windows, tapped)
        output_seed = passes.rule.output_seed(cotangent, output.detach())
        gradients = passes.gradients(output, places, output_seed, passes.through_value(tapped))
        return places, gradients, starts

    def _changes(self, positions: tuple[tuple[int, ...], ...]) -> Changes | None:
        """The layer that moves, from the same windows of where it comes from."""
        if self.interpolated is None:
            return None
        start = self.layout.cut(self.layout.pad(self.interpolated.start[0]), positions)
        model = self.passes.model
        return self.interpolated.changes(model.network, partial(dense, model), start)

    def _record(
        self, positions: tuple[tuple[int, ...], ...], cotangent: Tensor
    ) -> tuple[RuleMode | None, dict[Tap, Tensor]]:
        if self.reference is None:
            return None, {}
        passes = self.passes
        windows = self.layout.cut(self.reference, positions)
        recording = passes.rule.record()
        with torch.no_grad(), tapping(passes.model.network, passes.taps) as tapped, recording:
            output = dense(passes.model, windows)
        if self.bound.is_linear:
            self.start_score += float((output * cotangent).sum(dtype=torch.float64))
        return recording, passes.detached(passes.tapped_values(windows, tapped))

    def _evaluated(self, gradient: Tensor, layers: _Layers) -> PassResult:
        score = torch.tensor([self.score], dtype=torch.float64)
        start = torch.tensor([self.start_score], dtype=torch.float64)
        gradients = {**layers.gradients(), INPUT: self.layout.fold(gradient)[None]}
        values = {**layers.values(), INPUT: self.image[None].detach()}
        starts = layers.starts()
        if self.start is not None:
            starts[INPUT] = self.start[None]
        paired = self.reference is not None
        return PassResult(score, start if paired else None, gradients, values, starts)


class _Layers:
    """Collects the tapped layers of all windows of one volume."""

    def __init__(self) -> None:
        self._parts: tuple[dict[Tap, list[Tensor]], ...] = ({}, {}, {})

    def add(self, *found: dict[Tap, Tensor]) -> None:
        for parts, places in zip(self._parts, found, strict=True):
            for place, value in places.items():
                if place != INPUT:
                    parts.setdefault(place, []).append(value.detach())

    def values(self) -> dict[Tap, Tensor]:
        return self._stacks(0)

    def gradients(self) -> dict[Tap, Tensor]:
        return self._stacks(1)

    def starts(self) -> dict[Tap, Tensor]:
        return self._stacks(2)

    def _stacks(self, which: int) -> dict[Tap, Tensor]:
        """``(1, K, windows, *cells)`` per tap."""
        return {
            tap: torch.cat(parts).transpose(0, 1)[None] for tap, parts in self._parts[which].items()
        }
