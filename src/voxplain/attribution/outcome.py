"""What goes into a session, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from voxplain.attribution.identity import plain
from voxplain.attribution.streams import Stream
from voxplain.precision import Precision


@dataclass(frozen=True, eq=False)
class Batch:
    """The images of one call.

    Attributes:
        images: ``(B, C, *spatial)`` in model space.
        keys: What the random draws of each image depend on.
        references: Per image the others it may be compared with, or None.
    """

    images: Tensor
    keys: tuple[str, ...]
    references: tuple[Tensor | None, ...]


@dataclass(eq=False)
class StreamRecord:
    """What is known of a stream after it ran."""

    stream: Stream
    seconds: float = 0.0
    passes: int = 0
    treated: dict[str, int] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    precision: Precision = "float32"

    @property
    def facts(self) -> dict[str, Any]:
        """For the sidecar."""
        request, noise = self.stream.request, self.stream.noise
        return {
            "sampler": plain(request.sampler),
            "noise": plain(noise.sampler) if noise else None,
            "rule": plain(request.rule),
            "target": str(self.stream.target),
            "treated": dict(self.treated),
            "precision": self.precision,
        }


@dataclass(eq=False)
class Outcome:
    """What the streams brought for one method.

    Attributes:
        maps: By layer path, ``(B, ...)``; None is the key of a map on the image grid.
        differences: S(x) - S(b) per image, where a stream has both.
        start_scores: S(b) per image.
        streams: The streams it read.
    """

    maps: dict[str | None, Tensor] = field(default_factory=dict)
    differences: list[float] | None = None
    start_scores: list[float] | None = None
    streams: list[StreamRecord] = field(default_factory=list)
