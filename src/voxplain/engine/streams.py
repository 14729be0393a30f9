"""Streams: what methods declared, grouped by equality, so that each is run once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from voxplain.engine.context import Context
from voxplain.engine.gradients.reducers import Reducer
from voxplain.engine.identity import identity
from voxplain.engine.masks import MaskReducer
from voxplain.engine.method import Method
from voxplain.engine.passes.result import INPUT
from voxplain.engine.requests import AnyRequest, GradientRequest, MaskRequest, NoisyCopies
from voxplain.engine.taps import Tap
from voxplain.targets import Target


@dataclass(frozen=True, eq=False)
class Slot:
    """Where a result goes: a request of a method, at one place."""

    method: str
    request: int
    place: Tap
    reducer: Callable[[], Reducer]


@dataclass(frozen=True, eq=False)
class MaskSlot:
    """Where the result of masks goes: a request of a method."""

    method: str
    request: int
    reducer: MaskReducer
    place: Tap = INPUT


AnySlot = Slot | MaskSlot


@dataclass(eq=False)
class _Declared:
    """What both kinds of streams have.

    Attributes:
        target: What is explained.
        noise: Copies that the stream runs over, or None for the images themselves.
    """

    target: Target
    noise: NoisyCopies | None
    slots: Any = field(default_factory=list, init=False)

    @property
    def copies(self) -> int:
        """Noisy copies per image, 1 without noise."""
        return self.noise.sampler.samples if self.noise else 1

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that read this stream."""
        return tuple(dict.fromkeys(slot.method for slot in self.slots))


@dataclass(eq=False)
class Stream(_Declared):
    """Requests with equal sampler, rule, target and precision.

    Attributes:
        request: Any one of them.
        slots: All that is kept.
    """

    request: GradientRequest
    slots: list[Slot] = field(default_factory=list, init=False)

    @property
    def places(self) -> tuple[Tap, ...]:
        """The union of the places, each once."""
        return tuple(dict.fromkeys(slot.place for slot in self.slots))

    @property
    def passes(self) -> int:
        """Forward-and-backward passes per image, where there are references enough."""
        return self.copies * self.request.sampler.passes

    def passes_with(self, references: int) -> int:
        """Passes for an image that has so many references."""
        return self.copies * self.request.sampler.passes_with(references)

    @property
    def needs_taps_at_ends(self) -> bool:
        """Whether activations are read at the ends of the lines."""
        return any(slot.place != INPUT and slot.reducer().needs_ends for slot in self.slots)

    @property
    def is_complete(self) -> bool:
        """Whether some result should sum to S(end) - S(start)."""
        return any(self.is_complete_for(method) for method in self.methods)

    def is_complete_for(self, method: str) -> bool:
        """Whether the result of this method should, whatever else reads the stream."""
        return any(slot.reducer().complete for slot in self.slots if slot.method == method)


@dataclass(eq=False)
class MaskedStream(_Declared):
    """Requests with equal masks, fill and target: scores only, no gradients.

    Attributes:
        request: Any one of them.
        masks: About how many masks an image has.
        slots: All that is kept.
    """

    request: MaskRequest
    masks: int
    slots: list[MaskSlot] = field(default_factory=list, init=False)

    @property
    def places(self) -> tuple[Tap, ...]:
        """The image, and the layers that the masks look at."""
        return (INPUT, *self.request.masks.taps)

    @property
    def passes(self) -> int:
        """About how many forwards per image, where there are references enough."""
        return self.copies * self.masks * self.request.fill.runs(None)

    def passes_with(self, references: int) -> int:
        """About how many forwards for an image that has so many references."""
        return self.copies * self.masks * self.request.fill.runs(references)

    def is_complete_for(self, method: str) -> bool:
        """Whether what this method shares out should be S(x) - S(nothing left)."""
        return any(slot.reducer.complete for slot in self.slots if slot.method == method)


AnyStream = Stream | MaskedStream


def declared(methods: Sequence[Method], context: Context, target: Target) -> list[AnyStream]:
    """The distinct streams of some methods, in the order in which they first appear."""
    streams: dict[object, AnyStream] = {}
    for method in methods:
        noise = method.noise()
        for index, request in enumerate(method.requests(context)):
            asked = request.target or target
            key = identity((*_what(request), asked, noise.sampler if noise else None))
            if key not in streams:
                streams[key] = _stream(request, asked, noise, context)
            _add(streams[key], request, method.key, index)
    return list(streams.values())


def _what(request: AnyRequest) -> tuple[object, ...]:
    """What makes two requests one stream."""
    if isinstance(request, MaskRequest):
        return (request.masks, request.fill)
    return (request.sampler, request.rule, request.double)


def _stream(
    request: AnyRequest, target: Target, noise: NoisyCopies | None, context: Context
) -> AnyStream:
    if isinstance(request, MaskRequest):
        return MaskedStream(target, noise, request, request.masks.expected(context))
    return Stream(target, noise, request)


def _add(stream: AnyStream, request: AnyRequest, method: str, index: int) -> None:
    if isinstance(stream, MaskedStream) and isinstance(request, MaskRequest):
        stream.slots.append(MaskSlot(method, index, request.reducer))
    elif isinstance(stream, Stream) and isinstance(request, GradientRequest):
        stream.slots += [Slot(method, index, place, request.reducer) for place in request.places]
