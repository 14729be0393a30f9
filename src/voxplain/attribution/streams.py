"""Streams: what methods declared, grouped by equality, so that each is run once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from voxplain.attribution.identity import identity
from voxplain.attribution.method import Method, Noise, Request
from voxplain.attribution.passes import INPUT
from voxplain.attribution.reducers import Reducer
from voxplain.attribution.scene import Scene
from voxplain.attribution.taps import Tap
from voxplain.targets import Target


@dataclass(frozen=True, eq=False)
class Slot:
    """Where a result goes: a request of a method, at one place."""

    method: str
    request: int
    place: Tap
    reducer: Callable[[], Reducer]


@dataclass(eq=False)
class Stream:
    """Requests with equal sampler, rule, target and precision.

    Attributes:
        request: Any one of them.
        target: What is explained.
        noise: Copies that the stream runs over, or None for the images themselves.
        slots: All that is kept.
    """

    request: Request
    target: Target
    noise: Noise | None
    slots: list[Slot] = field(default_factory=list)

    @property
    def places(self) -> tuple[Tap, ...]:
        """The union of the places, each once."""
        return tuple(dict.fromkeys(slot.place for slot in self.slots))

    @property
    def copies(self) -> int:
        """Noisy copies per image, 1 without noise."""
        return self.noise.sampler.samples if self.noise else 1

    @property
    def passes(self) -> int:
        """Forward-and-backward passes per image, where there are references enough."""
        return self.copies * self.request.sampler.passes

    def passes_with(self, references: int) -> int:
        """Passes for an image that has so many references."""
        return self.copies * self.request.sampler.passes_with(references)

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that read this stream."""
        return tuple(dict.fromkeys(slot.method for slot in self.slots))

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


def declared(methods: Sequence[Method], scene: Scene, target: Target) -> list[Stream]:
    """The distinct streams of some methods, in the order in which they first appear."""
    streams: dict[object, Stream] = {}
    for method in methods:
        noise = method.noise()
        for index, request in enumerate(method.requests(scene)):
            asked = request.target or target
            sampler = noise.sampler if noise else None
            key = identity((request.sampler, request.rule, asked, request.double, sampler))
            stream = streams.setdefault(key, Stream(request, asked, noise))
            stream.slots += [
                Slot(method.key, index, place, request.reducer) for place in request.places
            ]
    return list(streams.values())
