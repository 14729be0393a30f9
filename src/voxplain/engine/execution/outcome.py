"""What goes into a session, and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from voxplain.engine.identity import plain
from voxplain.engine.streams import AnyStream, MaskedStream
from voxplain.models.precision import Precision


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

    stream: AnyStream
    seconds: float = 0.0
    passes: int = 0
    treated: dict[str, int] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    precision: Precision = "float32"
    conservation: dict[str, float] = field(default_factory=dict)

    @property
    def facts(self) -> dict[str, Any]:
        """For the sidecar."""
        noise = self.stream.noise
        return {
            **self._asked,
            "noise": plain(noise.sampler) if noise else None,
            "target": str(self.stream.target),
            "treated": dict(self.treated),
            "precision": self.precision,
            **({"conservation": self.conservation} if self.conservation else {}),
        }

    @property
    def _asked(self) -> dict[str, Any]:
        if isinstance(self.stream, MaskedStream):
            masked = self.stream.request
            return {"masks": plain(masked.masks), "fill": plain(masked.fill)}
        request = self.stream.request
        return {"sampler": plain(request.sampler), "rule": plain(request.rule)}


@dataclass(eq=False)
class Outcome:
    """What the streams brought for one method.

    Attributes:
        maps: By layer path, ``(B, ...)``; None is the key of a map on the image grid.
        differences: S(x) - S(b) per image, where a stream has both.
        start_scores: S(b) per image.
        totals: Per image what the method shares out, where that is not the sum of its map.
        findings: Per image what else came out: a fit, values by region.
        streams: The streams it read.
    """

    maps: dict[str | None, Tensor] = field(default_factory=dict)
    differences: list[float] | None = None
    start_scores: list[float] | None = None
    totals: list[float] | None = None
    findings: list[dict[str, Any]] | None = None
    streams: list[StreamRecord] = field(default_factory=list)

    def note(self, findings: Sequence[Mapping[str, Any]]) -> None:
        """Adds to what is known of each image."""
        if not any(findings):
            return
        known = self.findings or [{} for _ in findings]
        self.findings = [{**one, **other} for one, other in zip(known, findings, strict=True)]
