"""Runs the streams of a batch of images and hands every method its results.

The outer loop goes over *items* - images, or noisy copies of them - and every stream of a noise
group sees the same items. Each item leaves one map per method, which is summed up over the
copies: nothing of the size of samples times volume is ever held.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from voxplain.attribution.binding import Bound
from voxplain.attribution.budget import Budget
from voxplain.attribution.gate import gated
from voxplain.attribution.identity import identity
from voxplain.attribution.method import Method, Results
from voxplain.attribution.outcome import Batch, Outcome, StreamRecord
from voxplain.attribution.passes import INPUT, Passes, WholePasses
from voxplain.attribution.reducers import OverDraws
from voxplain.attribution.rules import Plain, guard
from voxplain.attribution.runner import Reduced, Runner
from voxplain.attribution.samplers import Item
from voxplain.attribution.scene import Scene
from voxplain.attribution.streams import Stream, declared
from voxplain.attribution.windowed import WindowedPasses
from voxplain.model import Model
from voxplain.precision import Precision
from voxplain.targets import Target

Progress = Callable[[int, int], None]
"""Called with passes done and passes planned."""

_ITEM_BYTES = 64 * 2**20


class Session:
    """One network, one batch, some methods: from declarations to tensors.

    Args:
        scene: The network and what is known of it.
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
        scene: Scene,
        methods: Sequence[Method],
        target: Target,
        bind: Callable[[Target], Bound],
        batch: Batch,
        memory: int | None = None,
        progress: Progress | None = None,
        home: torch.device | None = None,
    ) -> None:
        self.scene, self.methods, self.batch = scene, methods, batch
        self.memory, self.home = memory, home or batch.images.device
        self.streams = declared(methods, scene, target)
        asked = {identity(stream.target): stream.target for stream in self.streams}
        self.bounds = {key: bind(one) for key, one in asked.items()}
        self.records = {id(stream): StreamRecord(stream) for stream in self.streams}
        scene.survey(
            [place for stream in self.streams for place in stream.places if place != INPUT]
        )
        self._progress, self._done = progress, 0

    def run(self) -> dict[str, Outcome]:
        """All maps, by the key of the method."""
        precision = gated(self.scene, next(iter(self.bounds.values())), self.batch.images)
        outcomes = {method.key: Outcome() for method in self.methods}
        for group in self._noise_groups():
            self._run_group(group, precision, outcomes)
        for method in self.methods:
            outcomes[method.key].streams = [
                self.records[id(stream)] for stream in self.streams if method.key in stream.methods
            ]
        return outcomes

    def bound_of(self, target: Target) -> Bound:
        """A target of one of the streams, bound on this batch."""
        return self.bounds[identity(target)]

    @property
    def planned(self) -> int:
        """Passes of the whole batch."""
        rows = range(len(self.batch.images))
        return sum(self.passes_of(stream, row) for stream in self.streams for row in rows)

    def passes_of(self, stream: Stream, row: int) -> int:
        """Passes of a stream for one image of the batch."""
        references = self.batch.references[row]
        return stream.passes_with(0 if references is None else len(references))

    def _noise_groups(self) -> list[list[Stream]]:
        groups: dict[object, list[Stream]] = {}
        for stream in self.streams:
            key = identity(stream.noise.sampler) if stream.noise else None
            groups.setdefault(key, []).append(stream)
        return list(groups.values())

    def _run_group(
        self, streams: list[Stream], precision: Precision, outcomes: dict[str, Outcome]
    ) -> None:
        readers = {key for stream in streams for key in stream.methods}
        methods = [method for method in self.methods if method.key in readers]
        sums = {method.key: _PerImage(method, len(self.batch.images)) for method in methods}
        with contextlib.ExitStack() as stack:
            runners = [self._runner(stream, precision, stack) for stream in streams]
            for items in self._items(streams):
                found = [self._timed(runner, items) for runner in runners]
                for position, item in enumerate(items):
                    reduced = {
                        id(runner.stream): part[position]
                        for runner, part in zip(runners, found, strict=True)
                    }
                    for method in methods:
                        sums[method.key].add(item.row, self._maps(method, streams, reduced, item))
                        self._note_scores(outcomes[method.key], method, streams, reduced, item)
            for runner in runners:
                self._note(runner)
        for key, collected in sums.items():
            outcomes[key].maps = collected.stacked()

    def _runner(self, stream: Stream, precision: Precision, stack: contextlib.ExitStack) -> Runner:
        double = stream.request.double or precision == "float64"
        model = self.scene.model.in_precision("float64" if double else precision)
        stack.enter_context(model.at_rest())
        if not isinstance(stream.request.rule, Plain):
            stack.enter_context(guard(model.network))
        bound = self.bounds[identity(stream.target)]
        weights = bound.field.to(torch.float64) if double else bound.field
        asked = (model, stream.request.rule, weights, stream.places, self.scene.arranged)
        passes: Passes = (
            WholePasses(*asked, bound.rebind)
            if self.scene.layout is None
            else WindowedPasses(*asked, bound.rebind, self.scene.spacing)
        )
        self.records[id(stream)].precision = "float64" if double else precision
        return Runner(
            stream,
            passes,
            self._budget(model),
            self._tick,
            None if stream.noise else bound.scores,
            self.scene.layout.redundancy if self.scene.layout else 1.0,
        )

    def _budget(self, model: Model) -> Budget:
        """Windowed volumes go one by one: several at once save nothing and hold several."""
        if self.scene.layout is not None:
            return Budget(model.device, limit=0)
        return Budget(model.device, self.memory, self.batch.images[0].nbytes)

    def _timed(self, runner: Runner, items: list[Item]) -> list[Reduced]:
        started = time.perf_counter()
        double = self.records[id(runner.stream)].precision == "float64"
        dtype = torch.float64 if double else self.batch.images.dtype
        found = runner.run([_cast(item, dtype) for item in items])
        self.records[id(runner.stream)].seconds += time.perf_counter() - started
        return found

    def _items(self, streams: list[Stream]) -> Iterator[list[Item]]:
        """Images, or noisy copies of them, as many at a time as stay small in memory."""
        noise = streams[0].noise
        batch = self.batch
        size = batch.images[0].numel() * batch.images.element_size()
        many = self.scene.layout is None
        many = many and all(stream.request.sampler.passes == 1 for stream in streams)
        at_once = max(1, min(64, _ITEM_BYTES // (8 * size))) if many else 1
        waiting: list[Item] = []
        for row, image in enumerate(batch.images):
            copies = noise.sampler.samples if noise else 1
            for index in range(copies):
                key = batch.keys[row]
                shown = image
                if noise:
                    shown = noise.sampler.noisy(image, key, range(index, index + 1))[0]
                    key = f"{key}/{index}"
                source = image if noise else None
                waiting.append(Item(shown, row, key, batch.references[row], source))
                if len(waiting) == at_once:
                    yield waiting
                    waiting = []
        if waiting:
            yield waiting

    def _maps(
        self, method: Method, streams: list[Stream], reduced: Mapping[int, Reduced], item: Item
    ) -> dict[str | None, Tensor]:
        results = _by_request(method, streams, reduced, item)
        dtype = self.batch.images.dtype
        maps = method.maps(results, self.scene)
        return {layer: map.to(dtype) for layer, map in maps.items()}

    def _note_scores(
        self,
        outcome: Outcome,
        method: Method,
        streams: list[Stream],
        reduced: Mapping[int, Reduced],
        item: Item,
    ) -> None:
        """S(x) - S(b) of the image itself; noisy copies have no completeness of their own."""
        for stream in streams:
            found = reduced[id(stream)]
            if stream.noise or found.difference is None:
                continue
            if not stream.is_complete_for(method.key):
                continue
            count = len(self.batch.images)
            outcome.differences = outcome.differences or [0.0] * count
            outcome.start_scores = outcome.start_scores or [0.0] * count
            outcome.differences[item.row] += found.difference * method.share
            outcome.start_scores[item.row] += (found.start_score or 0.0) * method.share

    def _note(self, runner: Runner) -> None:
        notes = runner.passes.notes
        record = self.records[id(runner.stream)]
        record.passes = notes.passes
        record.treated = notes.treated
        record.remarks = tuple(notes.remarks)

    def _tick(self, points: int) -> None:
        self._done += points
        if self._progress is not None:
            self._progress(self._done, self.planned)


class _PerImage:
    """The maps of one method: one per image, summed up over noisy copies."""

    def __init__(self, method: Method, count: int) -> None:
        noise = method.noise()
        self._statistic = noise.statistic if noise else "mean"
        self._rows: list[dict[str | None, OverDraws]] = [{} for _ in range(count)]

    def add(self, row: int, maps: Mapping[str | None, Tensor]) -> None:
        for layer, map in maps.items():
            self._rows[row].setdefault(layer, OverDraws(self._statistic)).update(map)

    def stacked(self) -> dict[str | None, Tensor]:
        layers = self._rows[0]
        return {layer: torch.stack([row[layer].result() for row in self._rows]) for layer in layers}


def _by_request(
    method: Method, streams: list[Stream], reduced: Mapping[int, Reduced], item: Item
) -> Results:
    found: dict[int, dict[Any, Tensor]] = {}
    for stream in streams:
        for slot, tensor in reduced[id(stream)].tensors.items():
            if slot.method == method.key:
                found.setdefault(slot.request, {})[slot.place] = tensor
    return Results(tuple(found[index] for index in sorted(found)), item)


def _cast(item: Item, dtype: torch.dtype) -> Item:
    if item.image.dtype == dtype:
        return item
    references = item.references.to(dtype) if item.references is not None else None
    source = item.source.to(dtype) if item.source is not None else None
    return Item(item.image.to(dtype), item.row, item.key, references, source)
