"""What a division into regions is, and the two that look at no intensity."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from voxplain.extents import Extent, resolve
from voxplain.image import Image
from voxplain.regions.map import RegionMap

Spacing = Sequence[float] | None
"""Millimeters per voxel along each spatial axis, or None where unknown."""


class Regions(BaseModel, ABC):
    """How an image is divided; its fields are the parameters.

    Attributes:
        files: Fields that may name a file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    files: ClassVar[tuple[str, ...]] = ()

    kind: str

    @abstractmethod
    def divide(self, image: Tensor, spacing: Spacing, scan: Image | None) -> RegionMap:
        """The regions of ``(C, *spatial)``; :func:`voxplain.regions.segment` remembers them."""

    @abstractmethod
    def expected(self, shape: Sequence[int], channels: int, spacing: Spacing = None) -> int:
        """About how many regions an image will have, before anything is computed."""


class Blocks(Regions):
    """Regular blocks; of size 1, every voxel is its own region.

    Attributes:
        size: Extent of a block; the last one along an axis may be smaller.
    """

    kind: Literal["blocks"] = "blocks"
    size: Extent = Field(default=0.125, description="voxels, fraction of an axis, or mm")

    def divide(self, image: Tensor, spacing: Spacing, scan: Image | None) -> RegionMap:
        """Blocks in the order of their first voxels."""
        shape = tuple(image.shape[1:])
        sides, counts = self._sides(shape, spacing), self._counts(shape, spacing)
        labels = torch.zeros(shape, dtype=torch.int64, device=image.device)
        for axis, (length, side, count) in enumerate(zip(shape, sides, counts, strict=True)):
            along = torch.arange(length, device=image.device) // side
            others = [-1 if other == axis else 1 for other in range(len(shape))]
            labels = labels * count + along.view(others)
        return RegionMap(labels)

    def expected(self, shape: Sequence[int], channels: int, spacing: Spacing = None) -> int:
        """Exactly so many."""
        return math.prod(self._counts(shape, spacing))

    def _sides(self, shape: Sequence[int], spacing: Spacing) -> list[int]:
        return [max(1, side) for side in resolve(self.size, shape, spacing)]

    def _counts(self, shape: Sequence[int], spacing: Spacing) -> list[int]:
        sides = self._sides(shape, spacing)
        return [math.ceil(length / side) for length, side in zip(shape, sides, strict=True)]


class Channels(Regions):
    """Each input channel is one region: which sequence of an MR study matters."""

    kind: Literal["channels"] = "channels"

    def divide(self, image: Tensor, spacing: Spacing, scan: Image | None) -> RegionMap:
        """Labels ``(C, *spatial)``, with the names of the channels where the scan has them."""
        numbers = torch.arange(len(image), device=image.device)
        labels = numbers.view(-1, *(1,) * (image.ndim - 1)).expand(image.shape).contiguous()
        named = scan is not None and len(scan.channels) == len(image)
        return RegionMap(labels, scan.channels if named and scan is not None else ())

    def expected(self, shape: Sequence[int], channels: int, spacing: Spacing = None) -> int:
        """The number of channels."""
        return channels
