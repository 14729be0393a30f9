"""What methods request of the two streams, and what they get back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import Tensor

from voxplain.engine.gradients.reducers import Reducer
from voxplain.engine.gradients.samplers import Sampler
from voxplain.engine.item import StreamInput
from voxplain.engine.masks.fills import Fill
from voxplain.engine.masks.reducers.base import MaskReducer
from voxplain.engine.masks.samplers import MaskSampler
from voxplain.engine.noise import GaussianNoise
from voxplain.engine.passes.result import INPUT
from voxplain.engine.rules import Plain, Rule
from voxplain.engine.taps import Tap
from voxplain.targets import Target

Choice = Literal["auto", "on", "off"]
"""``auto`` follows cones where that is much less work; counted, not timed, so always the same."""


@dataclass(frozen=True, eq=False)
class MaskRequest:
    """Masks, what removed voxels become, and what is kept of the scores.

    Attributes:
        masks: Which parts are removed.
        fill: What they become.
        reducer: Makes a map of the scores.
        target: What to explain instead of the target of the call.
        incremental: Whether only what a mask changes is computed; it never changes a score
            beyond rounding.
    """

    masks: MaskSampler
    fill: Fill
    reducer: MaskReducer
    target: Target | None = None
    incremental: Choice = "auto"


@dataclass(frozen=True, eq=False)
class StreamResults:
    """What the streams brought back to one method for one image.

    Attributes:
        streams: Per request of the method, the reduced tensor at each place.
        item: The image (or noisy copy) they are about, with its key and references.
    """

    streams: tuple[Mapping[Tap, Tensor], ...]
    item: StreamInput

    def __getitem__(self, request: int) -> Mapping[Tap, Tensor]:
        return self.streams[request]

    def __iter__(self) -> Iterator[Mapping[Tap, Tensor]]:
        return iter(self.streams)

    def part(self, requests: slice) -> StreamResults:
        """What some of the requests brought, for a method made of others."""
        return replace(self, streams=self.streams[requests])


@dataclass(frozen=True, eq=False)
class MethodOutput:
    """What a method makes of its maps of one image, once all noisy copies are summed up.

    Attributes:
        maps: By layer path; None is the key of a map on the image grid.
        findings: What else came out, for the sidecar.
    """

    maps: dict[str | None, Tensor]
    findings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class GradientRequest:
    """One stream of a method, and what to keep of it.

    Attributes:
        sampler: The points.
        reducer: Makes the accumulator of one place.
        rule: How functions are differentiated.
        places: Where to look: the input, or tapped layers.
        target: What to explain instead of the target of the call (a unit, say).
        double: Run in float64 where the network has norms whose statistics of a constant
            baseline would cancel.
    """

    sampler: Sampler
    reducer: Callable[[], Reducer]
    rule: Rule = Plain()  # noqa: RUF009
    places: tuple[Tap, ...] = (INPUT,)
    target: Target | None = None
    double: bool = False


AnyRequest = GradientRequest | MaskRequest
"""What a method may ask for: a stream of gradients, or one of scores under masks."""


@dataclass(frozen=True)
class NoisyCopies:
    """Noisy copies over which the maps of a method are summed up."""

    sampler: GaussianNoise
    statistic: Literal["mean", "mean_square", "variance"]
