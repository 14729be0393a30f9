"""One network, one batch of images, some methods: their streams, targets and passes."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence

import torch

from voxplain.engine.binding import BoundTarget
from voxplain.engine.context import Context
from voxplain.engine.execution.gradient_runner import GradientRunner
from voxplain.engine.execution.masked_runner import MaskedRunner
from voxplain.engine.execution.networks import AnyRunner, run_networks
from voxplain.engine.execution.outcome import Batch, Outcome, StreamRecord
from voxplain.engine.identity import identity
from voxplain.engine.item import StreamInput
from voxplain.engine.memory import BackwardBudget, ForwardBudget
from voxplain.engine.method import Method
from voxplain.engine.passes.base import Passes
from voxplain.engine.passes.result import INPUT
from voxplain.engine.rules import Plain, Rule, guard
from voxplain.engine.streams import AnyStream, MaskedStream, Stream, declared
from voxplain.engine.taps import Tap
from voxplain.models.model import Model
from voxplain.models.precision import Precision
from voxplain.targets import Target

Progress = Callable[[int, int], None]
"""Called with passes done and passes planned."""

_ITEM_BYTES = 64 * 2**20


class Session:
    """One network, one batch, some methods: from declarations to tensors.

    Args:
        context: The network and what is known of it.
        methods: With distinct keys.
        target: What is explained, where a method does not name its own.
        bind: Binds a target on this batch.
        batch: The images.
        memory: Bytes for saved activations, None for the default of the device.
        progress: Told about passes.
        home: Where the caller's images are, and the maps return to.
    """

    def __init__(
        self,
        context: Context,
        methods: Sequence[Method],
        target: Target,
        bind: Callable[[Target], BoundTarget],
        batch: Batch,
        memory: int | None = None,
        progress: Progress | None = None,
        home: torch.device | None = None,
    ) -> None:
        self.context, self.methods, self.batch = context, methods, batch
        self.memory, self.home = memory, home or batch.images.device
        self.streams = declared(methods, context, target)
        asked = {identity(stream.target): stream.target for stream in self.streams}
        self.bounds = {key: bind(one) for key, one in asked.items()}
        self.records = {id(stream): StreamRecord(stream) for stream in self.streams}
        context.locate_layers(
            [place for stream in self.streams for place in stream.places if place != INPUT]
        )
        self._progress, self._done = progress, 0

    def run(self) -> dict[str, Outcome]:
        """All maps, by the key of the method."""
        return run_networks([self])[0]

    def bound_of(self, target: Target) -> BoundTarget:
        """A target of one of the streams, bound on this batch."""
        return self.bounds[identity(target)]

    @property
    def planned(self) -> int:
        """Passes of the whole batch."""
        rows = range(len(self.batch.images))
        return sum(self.passes_of(stream, row) for stream in self.streams for row in rows)

    def passes_of(self, stream: AnyStream, row: int) -> int:
        """Passes of a stream for one image of the batch, as planned."""
        references = self.batch.references[row]
        return stream.passes_with(0 if references is None else len(references))

    def spent(self, record: StreamRecord) -> int:
        """Passes of a stream for one image: what a masked stream took, what any other planned."""
        if isinstance(record.stream, MaskedStream):
            return math.ceil(record.passes / len(self.batch.images))
        return self.passes_of(record.stream, 0)

    def noise_groups(self) -> list[list[AnyStream]]:
        """Streams that see the same items: the images, or the same noisy copies of them."""
        groups: dict[object, list[AnyStream]] = {}
        for stream in self.streams:
            key = identity(stream.noise.sampler) if stream.noise else None
            groups.setdefault(key, []).append(stream)
        return list(groups.values())

    def items(self, streams: list[AnyStream]) -> Iterator[list[StreamInput]]:
        """Images, or noisy copies of them, as many at a time as stay small in memory."""
        noise = streams[0].noise
        batch = self.batch
        size = batch.images[0].numel() * batch.images.element_size()
        many = self.context.layout is None
        many = many and all(
            isinstance(stream, Stream) and stream.request.sampler.passes == 1 for stream in streams
        )
        at_once = max(1, min(64, _ITEM_BYTES // (8 * size))) if many else 1
        waiting: list[StreamInput] = []
        for row, image in enumerate(batch.images):
            key, among = batch.keys[row], batch.references[row]
            copies = noise.sampler.copies(image, key) if noise else (image,)
            for index, shown in enumerate(copies):
                drawn, source = (f"{key}/{index}", image) if noise else (key, None)
                waiting.append(StreamInput(shown, row, drawn, among, source, self.context.spacing))
                if len(waiting) == at_once:
                    yield waiting
                    waiting = []
        if waiting:
            yield waiting

    def runner(
        self, stream: AnyStream, precision: Precision, stack: contextlib.ExitStack
    ) -> AnyRunner:
        """A stream ready to run; the network is at rest until the stack closes."""
        if isinstance(stream, MaskedStream):
            passes = self._passes(stream, Plain(), (), precision, stack)
            budget = ForwardBudget(passes.model.device, self.memory)
            return MaskedRunner(
                stream, passes, self.context, budget, self.tick, self._known_scores(stream)
            )
        request = stream.request
        kind: Precision = "float64" if request.double else precision
        passes = self._passes(stream, request.rule, stream.places, kind, stack)
        redundancy = self.context.layout.redundancy if self.context.layout else 1.0
        return GradientRunner(
            stream,
            passes,
            self._budget(passes.model),
            self.tick,
            self._known_scores(stream),
            redundancy,
        )

    def _passes(
        self,
        stream: AnyStream,
        rule: Rule,
        places: tuple[Tap, ...],
        precision: Precision,
        stack: contextlib.ExitStack,
    ) -> Passes:
        """How points of a stream are evaluated; the network is at rest until the stack closes."""
        model = self.context.model.in_precision(precision)
        stack.enter_context(model.at_rest())
        if not isinstance(rule, Plain):
            stack.enter_context(guard(model.network))
        bound = self.bounds[identity(stream.target)]
        weights = bound.field.to(torch.float64) if precision == "float64" else bound.field
        self.records[id(stream)].precision = precision
        return self.context.passes(model, rule, weights, places, bound.rebind)

    def _known_scores(self, stream: AnyStream) -> tuple[float, ...] | None:
        """S of the images, for streams on the images themselves."""
        return None if stream.noise else self.bounds[identity(stream.target)].scores

    def _budget(self, model: Model) -> BackwardBudget:
        """Windowed volumes go one by one: several at once save nothing and hold several."""
        if self.context.layout is not None:
            return BackwardBudget(model.device, limit=0)
        return BackwardBudget(model.device, self.memory, self.batch.images[0].nbytes)

    def tick(self, points: int) -> None:
        """Counts passes."""
        self._done += points
        if self._progress is not None:
            self._progress(self._done, self.planned)
