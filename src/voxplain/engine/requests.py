"""Requests: what a method sends through the network. Streams: equal requests, which run once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, TypeVar

from voxplain.engine.context import Context
from voxplain.engine.gradients.reducers import Reducer
from voxplain.engine.gradients.samplers import Sampler
from voxplain.engine.identity import plain
from voxplain.engine.masks.fills import Fill
from voxplain.engine.masks.reducers.base import MaskReducer
from voxplain.engine.masks.samplers import MaskSampler
from voxplain.engine.passes.points import PassLog
from voxplain.engine.randomness import NoisyCopies
from voxplain.engine.rules import Plain, Rule
from voxplain.engine.stream_io import StreamInput
from voxplain.engine.taps import INPUT, Tap
from voxplain.targets import Target

Choice = Literal["auto", "on", "off"]
"""``auto`` computes only what a mask changes where that is much less work; this is counted, not
timed, so that it is always the same."""


@dataclass(frozen=True, eq=False)
class Request(ABC):
    """One stream that a method needs, and what it keeps of it.

    Attributes:
        target: What to explain instead of the target of the call (a unit, say).
    """

    target: Target | None = field(default=None, kw_only=True)

    forwards_only: ClassVar[bool] = False

    @property
    def rule(self) -> Rule:
        """How functions are differentiated."""
        return Plain()

    @property
    @abstractmethod
    def family(self) -> str:
        """What the precision is stated for: ``gradients``, the name of a rule, or ``masks``."""

    @property
    def double(self) -> bool:
        """Whether to run in float64."""
        return False

    @property
    @abstractmethod
    def key(self) -> tuple[object, ...]:
        """What makes two requests one stream; compared by value."""

    @property
    def places(self) -> tuple[Tap, ...]:
        """Where gradients are wanted."""
        return ()

    @property
    @abstractmethod
    def taps(self) -> tuple[Tap, ...]:
        """The layers that are read or changed."""

    @property
    @abstractmethod
    def results(self) -> tuple[Tap, ...]:
        """The places that a result belongs to."""

    @property
    @abstractmethod
    def complete(self) -> bool:
        """Whether the result should sum to S(x) - S(start)."""

    @property
    @abstractmethod
    def exact_in_windows(self) -> bool:
        """Whether sliding windows do not change the result."""

    @property
    @abstractmethod
    def single_pass(self) -> bool:
        """Whether one pass per image is all, so that several images go together."""

    @abstractmethod
    def expected(self, context: Context) -> int:
        """About how many masks an image has; 1 for gradients."""

    @abstractmethod
    def passes(self, expected: int, references: int | None = None) -> int:
        """Passes per image, with so many references; None for enough of them."""

    @abstractmethod
    def sample(self, item: StreamInput, context: Context) -> object:
        """The first points, or the masks, of an image; compared by value."""

    @abstractmethod
    def describe(self, expected: int) -> str:
        """The stream in words."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """The stream as a sidecar states it."""


@dataclass(frozen=True, eq=False)
class GradientRequest(Request):
    """Points, how functions are differentiated there, and what is kept of the gradients.

    Attributes:
        sampler: The points.
        reducer: Makes the accumulator of one place.
        rule: How functions are differentiated.
        places: Where to look: the input, or tapped layers.
        double: Run in float64 where the network has norms whose statistics of a constant
            baseline would cancel.
    """

    sampler: Sampler
    reducer: Callable[[], Reducer]
    rule: Rule = Plain()  # noqa: RUF009
    places: tuple[Tap, ...] = (INPUT,)
    double: bool = False

    @property
    def family(self) -> str:
        return "gradients" if self.rule.is_plain else self.rule.name

    @property
    def key(self) -> tuple[object, ...]:
        return (self.sampler, self.rule, self.double)

    @property
    def taps(self) -> tuple[Tap, ...]:
        return tuple(place for place in self.places if place != INPUT)

    @property
    def results(self) -> tuple[Tap, ...]:
        return self.places

    @property
    def complete(self) -> bool:
        return self.reducer().complete

    @property
    def exact_in_windows(self) -> bool:
        return self.rule.exact_in_windows

    @property
    def single_pass(self) -> bool:
        return self.sampler.passes == 1

    def expected(self, context: Context) -> int:
        return 1

    def passes(self, expected: int, references: int | None = None) -> int:
        return self.sampler.passes if references is None else self.sampler.passes_with(references)

    def sample(self, item: StreamInput, context: Context) -> object:
        return self.sampler.route(item).draw(range(1))

    def describe(self, expected: int) -> str:
        passes = self.sampler.passes
        count = "1 pass" if passes == 1 else f"{passes:,} passes"
        if self.sampler.open_ended:
            count = f"at most {count}"
        return f"{type(self.sampler).__name__} under {self.rule.name}, {count}"

    def facts(self) -> dict[str, Any]:
        return {"sampler": plain(self.sampler), "rule": plain(self.rule)}


@dataclass(frozen=True, eq=False)
class MaskRequest(Request):
    """Masks, what removed voxels become, and what is kept of the scores.

    Attributes:
        masks: Which parts are removed.
        fill: What they become.
        reducer: Makes a map of the scores.
        incremental: Whether only what a mask changes is computed; it never changes a score
            beyond rounding.
    """

    masks: MaskSampler
    fill: Fill
    reducer: MaskReducer
    incremental: Choice = field(default="auto", kw_only=True)

    forwards_only: ClassVar[bool] = True

    @property
    def family(self) -> str:
        return "masks"

    @property
    def key(self) -> tuple[object, ...]:
        return (self.masks, self.fill)

    @property
    def taps(self) -> tuple[Tap, ...]:
        return self.masks.taps

    @property
    def results(self) -> tuple[Tap, ...]:
        return (INPUT,)

    @property
    def complete(self) -> bool:
        return self.reducer.complete

    @property
    def exact_in_windows(self) -> bool:
        return True

    @property
    def single_pass(self) -> bool:
        return False

    def expected(self, context: Context) -> int:
        return self.masks.expected(context)

    def passes(self, expected: int, references: int | None = None) -> int:
        return expected * self.fill.runs(references)

    def sample(self, item: StreamInput, context: Context) -> object:
        return self.masks.masks(item, context)

    def describe(self, expected: int) -> str:
        runs = self.fill.runs(None)
        cases = f" and {runs} cases" if runs > 1 else ""
        name, fill = type(self.masks).__name__, self.fill.kind
        return f"{name} filled with {fill}, {expected:,} masks{cases}, forwards only"

    def facts(self) -> dict[str, Any]:
        return {"masks": plain(self.masks), "fill": plain(self.fill)}


R = TypeVar("R", bound=Request)


@dataclass(frozen=True, eq=False)
class Slot(Generic[R]):
    """Where a result goes.

    Attributes:
        method: Key of the method.
        index: Number of the request among those of the method.
        request: The request.
        place: The input, or a tapped layer.
    """

    method: str
    index: int
    request: R
    place: Tap


class Stream(Generic[R]):
    """Equal requests for the same target and noise, run once for all methods that read it.

    Args:
        request: Any one of them.
        target: What is explained.
        noise: Copies that the stream runs over, or None for the images themselves.
        expected: About how many masks an image has; 1 for gradients.

    Attributes:
        slots: All that is kept.
        methods: Keys of the methods that read it, each once.
        complete: Keys of those whose result should sum to S(x) - S(start).
        places: Where gradients are wanted, each place once.
        taps: The layers that are read or changed, each once.
    """

    def __init__(
        self, request: R, target: Target, noise: NoisyCopies | None, expected: int
    ) -> None:
        self.request, self.target, self.noise, self.expected = request, target, noise, expected
        self.slots: list[Slot[R]] = []
        self.methods: tuple[str, ...] = ()
        self.complete: set[str] = set()
        self.places: tuple[Tap, ...] = ()
        self.taps: tuple[Tap, ...] = ()

    def add(self, request: R, method: str, index: int) -> None:
        """Keeps what another equal request of a method keeps."""
        self.slots += [Slot(method, index, request, place) for place in request.results]
        self.methods = tuple(dict.fromkeys((*self.methods, method)))
        self.places = tuple(dict.fromkeys((*self.places, *request.places)))
        self.taps = tuple(dict.fromkeys((*self.taps, *request.taps)))
        if request.complete:
            self.complete.add(method)

    @property
    def copies(self) -> int:
        """Noisy copies per image, 1 without noise."""
        return self.noise.sampler.samples if self.noise else 1

    def passes(self, references: int | None = None) -> int:
        """Passes per image, with so many references; None for enough of them."""
        return self.copies * self.request.passes(self.expected, references)

    def describe(self) -> str:
        """The stream in words."""
        if self.noise is None:
            return self.request.describe(self.expected)
        each = "" if self.request.forwards_only else " each"
        return f"{self.copies} noisy copies, {self.request.describe(self.expected)}{each}"

    def facts(self, log: PassLog) -> dict[str, Any]:
        """The stream and how it ran, as a sidecar states them."""
        return {
            "family": self.request.family,
            **self.request.facts(),
            "noise": plain(self.noise.sampler) if self.noise else None,
            "target": str(self.target),
            "treated": dict(log.treated),
            "precision": log.precision,
            **({"agreement": round(log.agreement, 6)} if log.agreement is not None else {}),
            **({"offloaded": True} if log.offloaded else {}),
            **({"recomputed": True} if log.recomputed else {}),
            **({"conservation": log.conservation} if log.conservation else {}),
        }
