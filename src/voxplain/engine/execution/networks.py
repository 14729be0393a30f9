"""Streams of one network, or of several networks side by side, from inputs to maps.

The outer loop goes over images, or noisy copies of them, and every stream of a noise group sees
the same inputs. Each input leaves one map per method, which is summed up over the copies: nothing
of the size of samples times volume is ever held. Several networks are given the same points at the
same time, so that they can share the modules that they have in common.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from voxplain.engine.acceleration.shared_prefix import SharedModules, SharedPrefix
from voxplain.engine.execution.agreement import checked
from voxplain.engine.execution.double import reason_against_double
from voxplain.engine.execution.runner import Runner, StreamOutput
from voxplain.engine.execution.session import Session
from voxplain.engine.identity import identity
from voxplain.engine.method import Method
from voxplain.engine.randomness import CopyStatistic
from voxplain.engine.requests import Request, Stream
from voxplain.engine.stream_io import MethodOutput, StreamInput, StreamResults
from voxplain.models.failures import GradientError, with_methods
from voxplain.models.precision import LOW, Precision

Maps = dict[str | None, Tensor]
"""Maps of one image by layer path, None for that on the image grid."""
Outputs = dict[str, list[MethodOutput]]
"""Per image the output of each method, by the key of the method."""

_INPUT_BYTES = 64 * 2**20
_WORTH_SHARING = 4
"""Passes of a stream from which on networks share: finding out that they can costs forwards."""


def run_networks(
    sessions: Sequence[Session], shared_modules: SharedModules | None = None
) -> list[Outputs]:
    """The maps of each session.

    Args:
        sessions: The same methods and images, a network each.
        shared_modules: The modules that networks have in common; None where nothing is known.
    """
    outputs: list[Outputs] = [{} for _ in sessions]
    for streams in zip(*map(_noise_groups, sessions), strict=True):
        with contextlib.ExitStack() as stack:
            reasons = [_against_double(sessions[0], stream) for stream in streams[0]]
            groups = [
                _NoiseGroup(session, of_session, reasons, stack)
                for session, of_session in zip(sessions, streams, strict=True)
            ]
            _run(groups, shared_modules, stack)
        for of_session, group in zip(outputs, groups, strict=True):
            of_session |= group.outputs()
    return outputs


def _precision(session: Session) -> Precision:
    """The precision that is asked for, where no stream names its own."""
    model = session.context.model
    precision = model.resolved_precision
    if precision == "float64":
        return precision if model.dtype is torch.float64 else "float32"
    # Autocast and TF32 leave networks in float64 as they are.
    return "float64" if precision in LOW and model.dtype is torch.float64 else precision


def _against_double(session: Session, stream: Stream[Request]) -> str | None:
    """Why a stream does not run in float64, empty where it is not asked to; None where it runs."""
    if stream.request.double or session.context.model.precision == "float64":
        return reason_against_double(session, stream)
    return ""


def _noise_groups(session: Session) -> list[list[Stream[Request]]]:
    """Streams with the same inputs: the images, or the same noisy copies of them."""
    groups: dict[object, list[Stream[Request]]] = {}
    for stream in session.streams:
        value = identity(stream.noise.sampler) if stream.noise else None
        groups.setdefault(value, []).append(stream)
    return list(groups.values())


def _inputs(session: Session, streams: list[Stream[Request]]) -> Iterator[list[StreamInput]]:
    """Images, or noisy copies of them, as many at a time as stay small in memory."""
    noise, batch, context = streams[0].noise, session.batch, session.context
    together = context.layout is None
    together = together and all(stream.request.single_pass for stream in streams)
    at_once = max(1, min(64, _INPUT_BYTES // (8 * batch.images[0].nbytes))) if together else 1
    waiting: list[StreamInput] = []
    for row, image in enumerate(batch.images):
        key, references = batch.keys[row], batch.references[row]
        copies = noise.sampler.copies(image, key) if noise else (image,)
        for index, copy in enumerate(copies):
            draws, source = (f"{key}/{index}", image) if noise else (key, None)
            item = StreamInput(copy, row, draws, references, source, context.spacing, batch.images)
            waiting.append(item)
            if len(waiting) == at_once:
                yield waiting
                waiting = []
    if waiting:
        yield waiting


def _some_inputs(session: Session, stream: Stream[Request]) -> list[StreamInput]:
    """The first input of the first image, of one in the middle, and of the last one."""
    noise, batch, last = stream.noise, session.batch, len(session.batch.images) - 1
    items = []
    for row in sorted({0, last // 2, last}):
        image, key, references = batch.images[row], batch.keys[row], batch.references[row]
        copy = next(iter(noise.sampler.copies(image, key))) if noise else image
        draws, source = (f"{key}/0", image) if noise else (key, None)
        spacing = session.context.spacing
        items.append(StreamInput(copy, row, draws, references, source, spacing, batch.images))
    return items


def _run(
    groups: Sequence[_NoiseGroup],
    shared_modules: SharedModules | None,
    stack: contextlib.ExitStack,
) -> None:
    """All inputs through all streams; in each, through all networks."""
    session, streams = groups[0].session, groups[0].streams
    by_stream = list(zip(*(group.runners for group in groups), strict=True))
    prefixes = [_prefix(runners, shared_modules, stack) for runners in by_stream]
    for inputs in _inputs(session, streams):
        outputs = [
            _timed(runners, inputs, session.batch.images.dtype, prefix)
            for runners, prefix in zip(by_stream, prefixes, strict=True)
        ]
        for number, group in enumerate(groups):
            group.add(inputs, [of_stream[number] for of_stream in outputs])
    for group in groups:
        group.finish()


def _prefix(
    runners: Sequence[Runner], shared_modules: SharedModules | None, stack: contextlib.ExitStack
) -> SharedPrefix | None:
    """The modules that the networks of a stream share; None where rule, precision or memory forbid.

    Functions between shared modules run in each network, so that the gradient of a value may
    arrive in two parts. Only autograd itself treats these as it treats their sum.
    """
    passes = [runner.passes for runner in runners]
    if shared_modules is None or len(runners) < 2 or runners[0].planned < _WORTH_SHARING:
        return None
    if not passes[0].rule.is_plain or any(runner.budget.spared.acts for runner in runners):
        return None
    if len({each.model.precision for each in passes}) > 1:
        return None
    networks = [each.model.network for each in passes]
    modules = [shared_modules(number, each.taps) for number, each in enumerate(passes)]
    prefix = SharedPrefix(networks, modules)
    for each, prefix_user in zip(passes, prefix.prefix_users, strict=True):
        each.prefix_user = prefix_user
    stack.enter_context(prefix.installed())
    return prefix


def _timed(
    runners: Sequence[Runner],
    inputs: Sequence[StreamInput],
    dtype: torch.dtype,
    prefix: SharedPrefix | None,
) -> list[list[StreamOutput]]:
    """The output of a stream for each input, per network; several networks share the time."""
    started = time.perf_counter()
    if runners[0].passes.log.precision == "float64":
        dtype = torch.float64
    try:
        outputs = runners[0].run(runners, [_cast(item, dtype) for item in inputs], prefix)
    except GradientError as error:
        raise with_methods(error, runners[0].stream.methods) from error.__cause__
    for runner in runners:
        runner.passes.log.seconds += (time.perf_counter() - started) / len(runners)
    return outputs


class _NoiseGroup:
    """The streams of one noise group in one session, and the maps that come of them.

    Args:
        session: The network.
        streams: Of the group.
        reasons: Per stream why it does not run in float64; None where it does.
        stack: Keeps the network at rest.
    """

    def __init__(
        self,
        session: Session,
        streams: list[Stream[Request]],
        reasons: Sequence[str | None],
        stack: contextlib.ExitStack,
    ) -> None:
        self.session, self.streams = session, streams
        readers = {key for stream in streams for key in stream.methods}
        self._sums = [
            _MethodSums(method, key, session, streams)
            for key, method in session.methods.items()
            if key in readers
        ]
        self.runners = [
            self._runner(stream, reason, stack)
            for stream, reason in zip(streams, reasons, strict=True)
        ]

    def _runner(
        self, stream: Stream[Request], reason: str | None, stack: contextlib.ExitStack
    ) -> Runner:
        """A stream in its precision; a low one is checked first."""
        precision = "float64" if reason is None else _precision(self.session)
        if precision in LOW:
            items = _some_inputs(self.session, stream)
            runner = checked(self.session, stream, precision, items, stack)
        else:
            runner = self.session.runner(stream, precision, stack)
        if reason:
            remark = f"{reason}, so this map was computed in {runner.passes.log.precision}"
            runner.passes.log.remarks[remark] = None
        return runner

    def add(self, inputs: Sequence[StreamInput], outputs: Sequence[Sequence[StreamOutput]]) -> None:
        """Adds the outputs of all streams for some inputs."""
        for position, item in enumerate(inputs):
            by_stream = [of_stream[position] for of_stream in outputs]
            for sums in self._sums:
                sums.add(item, by_stream)

    def finish(self) -> None:
        """Completes the logs of the streams."""
        images = len(self.session.batch.images)
        for runner in self.runners:
            runner.finish(images)

    def outputs(self) -> Outputs:
        """The output of every method, per image."""
        return {sums.key: sums.outputs() for sums in self._sums}


class _MethodSums:
    """The maps of one method, summed up over noisy copies of each image.

    Args:
        method: What the maps are made by.
        key: Of the method.
        session: The network and the images.
        streams: Of the noise group.
    """

    def __init__(
        self, method: Method, key: str, session: Session, streams: Sequence[Stream[Request]]
    ) -> None:
        noise, properties = method.noise(), method.properties()
        self.method, self.key, self._session = method, key, session
        self._read = [key in stream.methods for stream in streams]
        # Noisy copies have no completeness of their own.
        is_complete = noise is None and properties.complete
        self._complete = [is_complete and key in stream.complete for stream in streams]
        self._noise, images = noise, session.batch.images
        self._maps: list[Maps] = [{} for _ in images]
        self._statistics: list[dict[str | None, CopyStatistic]] = [{} for _ in images]
        self._facts: list[dict[str, Any]] = [{} for _ in images]
        self._findings: list[dict[str, Any]] = [{} for _ in images]

    def add(self, item: StreamInput, by_stream: Sequence[StreamOutput]) -> None:
        """Adds the maps of one input."""
        outputs = [output for output, read in zip(by_stream, self._read, strict=True) if read]
        maps = self.method.maps(self._results(item, outputs), self._session.context)
        dtype = self._session.batch.images.dtype
        maps = {layer: values.to(dtype) for layer, values in maps.items()}
        if self._noise is None:
            self._maps[item.row] = maps
            self._add_facts(item.row, by_stream)
            return
        statistics = self._statistics[item.row]
        for layer, values in maps.items():
            statistics.setdefault(layer, CopyStatistic(self._noise.statistic)).update(values)

    def outputs(self) -> list[MethodOutput]:
        """What the method makes of its maps, per image."""
        outputs = []
        for row, image in enumerate(self._session.batch.images):
            maps = self._maps[row]
            if self._noise is not None:
                maps = {layer: sums.result() for layer, sums in self._statistics[row].items()}
            output = self.method.conclude(maps, image, self._session.context)
            findings = {**self._findings[row], **output.findings}
            outputs.append(replace(output, findings=findings, **self._facts[row]))
        return outputs

    def _results(self, item: StreamInput, outputs: Sequence[StreamOutput]) -> StreamResults:
        by_request: dict[int, dict[Any, Tensor]] = {}
        for output in outputs:
            for slot, tensor in output.tensors.items():
                if slot.method == self.key:
                    by_request.setdefault(slot.index, {})[slot.place] = tensor
        return StreamResults(tuple(by_request[index] for index in sorted(by_request)), item)

    def _add_facts(self, row: int, by_stream: Sequence[StreamOutput]) -> None:
        """S(x) - S(start); of several such streams (two baselines, a path per layer) the mean."""
        facts, share = self._facts[row], 1 / max(1, sum(self._complete))
        for output, complete in zip(by_stream, self._complete, strict=True):
            for slot, findings in output.findings.items():
                if slot.method == self.key:
                    self._findings[row].update(findings)
            if not complete or output.difference is None:
                continue
            _add(facts, "difference", output.difference * share)
            _add(facts, "start_score", (output.start_score or 0.0) * share)
            totals = [total for slot, total in output.totals.items() if slot.method == self.key]
            if totals:
                _add(facts, "total", sum(totals))


def _add(facts: dict[str, Any], name: str, value: float) -> None:
    facts[name] = facts.get(name, 0.0) + value


def _cast(item: StreamInput, dtype: torch.dtype) -> StreamInput:
    if item.image.dtype == dtype:
        return item
    references = item.references.to(dtype) if item.references is not None else None
    source = item.source.to(dtype) if item.source is not None else None
    return replace(item, image=item.image.to(dtype), references=references, source=source)
