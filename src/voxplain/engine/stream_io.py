"""What a stream runs on, and what methods get from streams and make of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from voxplain.engine.taps import Tap
from voxplain.errors import ConfigError


@dataclass(frozen=True, eq=False)
class StreamInput:
    """One image under one draw of noise, as the streams see it.

    Attributes:
        image: ``(C, *spatial)``.
        row: Index of the image in the batch, which selects its weight field.
        key: What its random draws depend on, beside the sample number.
        references: ``(K, C, *spatial)`` without the image itself, or None.
        source: The image without the noise of this draw, where it has some.
        spacing: Millimeters per voxel; None where unknown.
        batch: The images of the call ``(B, C, *spatial)``, this one among them.
    """

    image: Tensor
    row: int
    key: str
    references: Tensor | None = None
    source: Tensor | None = None
    spacing: tuple[float, ...] | None = None
    batch: Tensor | None = None

    @property
    def clean(self) -> Tensor:
        """The image without noise."""
        return self.image if self.source is None else self.source


def other_cases(item: StreamInput) -> list[Tensor]:
    """The references of an image; where none are given, the other images of its batch."""
    if item.references is not None:
        return list(item.references)
    batch = [] if item.batch is None else [image.to(item.clean) for image in item.batch]
    return [image for image in batch if not torch.equal(image, item.clean)]


FEWEST_REFERENCES = 2


class TooFewReferencesError(ConfigError):
    """A method that compares with other images has too few of them.

    Args:
        have: How many are given, without the image itself.
    """

    def __init__(self, have: int) -> None:
        super().__init__(
            f"this method compares with other images and {have} are given; pass at least "
            f"{FEWEST_REFERENCES} as references (the image itself does not count)"
        )


def require_references(item: StreamInput) -> Tensor:
    """The references of an image.

    Raises:
        TooFewReferencesError: If there are fewer than two.
    """
    have = 0 if item.references is None else len(item.references)
    if item.references is None or have < FEWEST_REFERENCES:
        raise TooFewReferencesError(have)
    return item.references


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
    """The maps of a method for one image, summed up over noisy copies.

    Attributes:
        maps: By layer path; None is the key of a map on the image grid.
        findings: What else came out, for the sidecar.
        difference: S(x) - S(start), where the map should sum to it.
        start_score: S(start).
        total: What the method attributes altogether, where that is not the sum of its map.
    """

    maps: dict[str | None, Tensor]
    findings: dict[str, Any] = field(default_factory=dict)
    difference: float | None = None
    start_score: float | None = None
    total: float | None = None
