"""Streams of one network, or of several networks side by side, from items to maps.

The outer loop goes over *items* - images, or noisy copies of them - and every stream of a noise
group sees the same items. Each item leaves one map per method, which is summed up over the
copies: nothing of the size of samples times volume is ever held. Networks side by side are given
the same points at the same time, so that they can share what they compute alike.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from voxplain.engine.acceleration.shared_prefix import SharedModules, SharedPrefix
from voxplain.engine.context import Context
from voxplain.engine.execution.accumulators import StreamOutput
from voxplain.engine.execution.gradient_runner import GradientRunner, reduced
from voxplain.engine.execution.masked_runner import MaskedRunner, masked
from voxplain.engine.execution.outcome import Outcome
from voxplain.engine.item import StreamInput
from voxplain.engine.method import Method
from voxplain.engine.noise import CopyStatistic
from voxplain.engine.passes.result import INPUT
from voxplain.engine.requests import MethodOutput, StreamResults
from voxplain.engine.rules import Plain
from voxplain.engine.streams import AnyStream
from voxplain.models.precision import GATE, Precision, agreement, is_half, resolve_precision

if TYPE_CHECKING:
    from voxplain.engine.execution.session import Session

AnyRunner = GradientRunner | MaskedRunner

_WORTH_SHARING = 4
"""Passes of a stream from which on networks share: finding out that they can costs forwards."""


def run_networks(
    sessions: Sequence[Session], alike: SharedModules | None = None
) -> list[dict[str, Outcome]]:
    """The maps of each session, by the key of the method.

    Args:
        sessions: The same methods and images, a network each.
        alike: What the networks compute alike; None where nothing is known of it.
    """
    outcomes = [{method.key: Outcome() for method in each.methods} for each in sessions]
    precisions = [_precision(session) for session in sessions]
    for streams in zip(*(session.noise_groups() for session in sessions), strict=True):
        with contextlib.ExitStack() as stack:
            asked = zip(sessions, streams, outcomes, precisions, strict=True)
            groups = [_NoiseGroup(*each, stack) for each in asked]
            _run(groups, alike, stack)
        for group in groups:
            group.conclude()
    for session, found in zip(sessions, outcomes, strict=True):
        for key, outcome in found.items():
            streams_read = (stream for stream in session.streams if key in stream.methods)
            outcome.streams = [session.records[id(stream)] for stream in streams_read]
    return outcomes


def _precision(session: Session) -> Precision:
    """The precision to run in: a half one only where its first gradient agrees with float32."""
    model = session.context.model
    precision = resolve_precision(model.precision, model.device, model.dtype)
    if not is_half(precision):
        return precision
    full, half = (_first_gradient(session, kind) for kind in ("float32", precision))
    return precision if agreement(half, full) >= GATE else "float32"


def _first_gradient(session: Session, precision: Precision) -> Tensor:
    model = session.context.model.in_precision(precision)
    bound = next(iter(session.bounds.values()))
    with model.at_rest():
        passes = session.context.passes(model, Plain(), bound.field, (INPUT,))
        return passes.run(session.batch.images[:1], [0]).gradients[INPUT]


def _run(
    groups: Sequence[_NoiseGroup], alike: SharedModules | None, stack: contextlib.ExitStack
) -> None:
    """All items through all streams; in each, through all networks."""
    first = groups[0]
    lanes = [[group.runners[at] for group in groups] for at in range(len(first.streams))]
    many = [first.session.passes_of(stream, 0) >= _WORTH_SHARING for stream in first.streams]
    prefixes = [
        _prefix(runners, alike if worth else None, stack)
        for runners, worth in zip(lanes, many, strict=True)
    ]
    for items in first.session.items(first.streams):
        found = [
            _timed(groups, runners, items, prefix)
            for runners, prefix in zip(lanes, prefixes, strict=True)
        ]
        for number, group in enumerate(groups):
            group.add(items, [of_stream[number] for of_stream in found])
    for group in groups:
        group.note()


def _prefix(
    runners: Sequence[AnyRunner], alike: SharedModules | None, stack: contextlib.ExitStack
) -> SharedPrefix | None:
    """What the networks of a stream share; None where rule or precision keeps them apart.

    Functions between the modules that are taken over run in each network, so that the gradient of
    a value may arrive in two parts. Only autograd itself treats these as it treats their sum.
    """
    passes = [runner.passes for runner in runners]
    apart = len({each.model.precision for each in passes}) > 1
    if alike is None or len(runners) < 2 or apart or not isinstance(passes[0].rule, Plain):
        return None
    networks = [each.model.network for each in passes]
    prefix = SharedPrefix(
        networks, [alike(number, each.taps) for number, each in enumerate(passes)]
    )
    for each, prefix_user in zip(passes, prefix.prefix_users, strict=True):
        each.prefix_user = prefix_user
    stack.enter_context(prefix.joined())
    return prefix


def _timed(
    groups: Sequence[_NoiseGroup],
    runners: Sequence[AnyRunner],
    items: Sequence[StreamInput],
    prefix: SharedPrefix | None,
) -> list[list[StreamOutput]]:
    """What a stream leaves of each item, per network; networks side by side share the time."""
    started = time.perf_counter()
    records = [
        group.session.records[id(runner.stream)]
        for group, runner in zip(groups, runners, strict=True)
    ]
    double = records[0].precision == "float64"
    dtype = torch.float64 if double else groups[0].session.batch.images.dtype
    shown = [_cast(item, dtype) for item in items]
    gradient = [runner for runner in runners if isinstance(runner, GradientRunner)]
    forward = [runner for runner in runners if isinstance(runner, MaskedRunner)]
    found = reduced(gradient, shown, prefix) if gradient else masked(forward, shown, prefix)
    for record in records:
        record.seconds += (time.perf_counter() - started) / len(records)
    return found


class _NoiseGroup:
    """The streams of one noise group in one session, and the maps that come of them.

    Args:
        session: The network.
        streams: Of the group.
        outcomes: Where the maps go, by the key of the method.
        precision: Of the network.
        stack: Keeps the network at rest.
    """

    def __init__(
        self,
        session: Session,
        streams: list[AnyStream],
        outcomes: Mapping[str, Outcome],
        precision: Precision,
        stack: contextlib.ExitStack,
    ) -> None:
        self.session, self.streams, self._outcomes = session, streams, outcomes
        readers = {key for stream in streams for key in stream.methods}
        self._methods = [method for method in session.methods if method.key in readers]
        count = len(session.batch.images)
        self._sums = {method.key: PerImage(method, count) for method in self._methods}
        self.runners = [session.runner(stream, precision, stack) for stream in streams]

    def add(self, items: Sequence[StreamInput], found: Sequence[Sequence[StreamOutput]]) -> None:
        """Takes in what the streams left of some items."""
        for position, item in enumerate(items):
            left = {
                id(stream): part[position] for stream, part in zip(self.streams, found, strict=True)
            }
            for method in self._methods:
                self._sums[method.key].add(item.row, self._maps(method, left, item))
                self._note_scores(method, left, item)

    def note(self) -> None:
        """Writes down how the streams ran."""
        for runner in self.runners:
            notes, record = runner.passes.notes, self.session.records[id(runner.stream)]
            record.passes = notes.passes if isinstance(runner, GradientRunner) else runner.forwards
            record.treated = notes.treated
            conserved = notes.conservation.remark()
            record.remarks = (*notes.remarks, conserved) if conserved else tuple(notes.remarks)
            record.conservation = notes.conservation.facts(notes.passes)

    def conclude(self) -> None:
        """Hands every method its sums."""
        for key, collected in self._sums.items():
            concluded = collected.concluded(self.session.batch.images, self.session.context)
            self._outcomes[key].maps = stacked(concluded)
            self._outcomes[key].note([one.findings for one in concluded])

    def _maps(
        self, method: Method, left: Mapping[int, StreamOutput], item: StreamInput
    ) -> dict[str | None, Tensor]:
        results = by_request(method, self.streams, left, item)
        dtype = self.session.batch.images.dtype
        maps = method.maps(results, self.session.context)
        return {layer: map.to(dtype) for layer, map in maps.items()}

    def _note_scores(
        self, method: Method, left: Mapping[int, StreamOutput], item: StreamInput
    ) -> None:
        """S(x) - S(b) of the image itself; noisy copies have no completeness of their own.

        Of several such streams (two baselines, or one path per layer) the mean counts.
        """
        outcome, streams = self._outcomes[method.key], self.streams
        count = len(self.session.batch.images)
        share = 1 / max(1, sum(stream.is_complete_for(method.key) for stream in streams))
        for stream in streams:
            found = left[id(stream)]
            if stream.noise:
                continue
            for slot, findings in found.findings.items():
                if slot.method == method.key:
                    outcome.findings = outcome.findings or [{} for _ in range(count)]
                    outcome.findings[item.row].update(findings)
            complete = method.complete and stream.is_complete_for(method.key)
            if found.difference is None or not complete:
                continue
            outcome.differences = outcome.differences or [0.0] * count
            outcome.start_scores = outcome.start_scores or [0.0] * count
            outcome.differences[item.row] += found.difference * share
            outcome.start_scores[item.row] += (found.start_score or 0.0) * share
            totals = [total for slot, total in found.totals.items() if slot.method == method.key]
            if totals:
                outcome.totals = outcome.totals or [0.0] * count
                outcome.totals[item.row] += sum(totals)


def _cast(item: StreamInput, dtype: torch.dtype) -> StreamInput:
    if item.image.dtype == dtype:
        return item
    references = item.references.to(dtype) if item.references is not None else None
    source = item.source.to(dtype) if item.source is not None else None
    return replace(item, image=item.image.to(dtype), references=references, source=source)


class PerImage:
    """The maps of one method: one per image, summed up over noisy copies."""

    def __init__(self, method: Method, count: int) -> None:
        noise = method.noise()
        self._method = method
        self._statistic = noise.statistic if noise else "mean"
        self._rows: list[dict[str | None, CopyStatistic]] = [{} for _ in range(count)]

    def add(self, row: int, maps: Mapping[str | None, Tensor]) -> None:
        """Takes in the maps of one item."""
        for layer, map in maps.items():
            self._rows[row].setdefault(layer, CopyStatistic(self._statistic)).update(map)

    def concluded(self, images: Tensor, context: Context) -> list[MethodOutput]:
        """What the method makes of its maps, per image."""
        return [
            self._method.conclude(
                {layer: sums.result() for layer, sums in row.items()}, image, context
            )
            for row, image in zip(self._rows, images, strict=True)
        ]


def stacked(concluded: Sequence[MethodOutput]) -> dict[str | None, Tensor]:
    """The maps of all images, ``(B, ...)`` by layer path."""
    layers = concluded[0].maps
    return {layer: torch.stack([one.maps[layer] for one in concluded]) for layer in layers}


def by_request(
    method: Method, streams: list[AnyStream], reduced: Mapping[int, StreamOutput], item: StreamInput
) -> StreamResults:
    """What the streams of a group brought to one method for one item."""
    found: dict[int, dict[Any, Tensor]] = {}
    for stream in streams:
        for slot, tensor in reduced[id(stream)].tensors.items():
            if slot.method == method.key:
                found.setdefault(slot.request, {})[slot.place] = tensor
    return StreamResults(tuple(found[index] for index in sorted(found)), item)
