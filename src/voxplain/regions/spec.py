"""Settings for dividing an image into regions: the base, blocks, and channels."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from voxplain.extents import PositiveExtent, resolve
from voxplain.image import Image
from voxplain.regions.map import RegionMap

Spacing = Sequence[float] | None
"""Millimeters per voxel along each spatial axis, or None where unknown."""


class Regions(BaseModel, ABC):
    """A way to divide an image into regions; its fields are the parameters.

    Attributes:
        files: Names of the fields that may hold a file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    files: ClassVar[tuple[str, ...]] = ()

    kind: str

    @abstractmethod
    def divide(self, image: Tensor, spacing: Spacing, scan: Image | None) -> RegionMap:
        """The regions of an image; see :func:`voxplain.regions.segment`, which caches them.

        Args:
            image: ``(C, *spatial)``.
            spacing: Millimeters per voxel, or None.
            scan: The image on its grid, if there is one.
        """

    @abstractmethod
    def expected(self, shape: Sequence[int], channels: int, spacing: Spacing = None) -> int:
        """The approximate number of regions of an image, before they are computed.

        Args:
            shape: Spatial shape.
            channels: Number of channels.
            spacing: Millimeters per voxel, or None.
        """


class Blocks(Regions):
    """Regular blocks; with size 1, every voxel is a region.

    Attributes:
        size: PositiveExtent of a block; the last block along an axis may be smaller.
    """

    kind: Literal["blocks"] = "blocks"
    size: PositiveExtent = Field(default=0.125, description="voxels, fraction of an axis, or mm")

    def divide(self, image: Tensor, spacing: Spacing, scan: Image | None) -> RegionMap:
        """Blocks, numbered with the last axis fastest."""
        shape = tuple(image.shape[1:])
        sides, counts = self._sides(shape, spacing), self._counts(shape, spacing)
        labels = torch.zeros(shape, dtype=torch.int64, device=image.device)
        for axis, (length, side, count) in enumerate(zip(shape, sides, counts, strict=True)):
            along = torch.arange(length, device=image.device) // side
            others = [-1 if other == axis else 1 for other in range(len(shape))]
            labels = labels * count + along.view(others)
        return RegionMap(labels)

    def expected(self, shape: Sequence[int], channels: int, spacing: Spacing = None) -> int:
        """The exact number of blocks."""
        return math.prod(self._counts(shape, spacing))

    def _sides(self, shape: Sequence[int], spacing: Spacing) -> list[int]:
        return [max(1, side) for side in resolve(self.size, shape, spacing)]

    def _counts(self, shape: Sequence[int], spacing: Spacing) -> list[int]:
        sides = self._sides(shape, spacing)
        return [math.ceil(length / side) for length, side in zip(shape, sides, strict=True)]


class Channels(Regions):
    """One region per input channel, such as the sequences of an MR study."""

    kind: Literal["channels"] = "channels"

    def divide(self, image: Tensor, spacing: Spacing, scan: Image | None) -> RegionMap:
        """Labels ``(C, *spatial)``, with the names of the channels if the scan has them."""
        numbers = torch.arange(len(image), device=image.device)
        labels = numbers.view(-1, *(1,) * (image.ndim - 1)).expand(image.shape).contiguous()
        names = () if scan is None or len(scan.channels) != len(image) else scan.channels
        return RegionMap(labels, names)

    def expected(self, shape: Sequence[int], channels: int, spacing: Spacing = None) -> int:
        """The number of channels."""
        return channels
