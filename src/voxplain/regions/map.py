"""A partition of the voxels of an image into regions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from voxplain.errors import InputError


@dataclass(frozen=True, eq=False)
class RegionMap:
    """A partition of some voxels of an image.

    Attributes:
        labels: int64, ``(*spatial)``, or ``(C, *spatial)`` for regions that differ per channel:
            ``0 .. count - 1``; voxels with -1 are in no region and never masked.
        names: One per region, or empty.
    """

    labels: Tensor
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.labels.numel() == 0 or int(self.labels.amax()) < 0:
            raise InputError("there is no region: not one voxel of the image belongs to any")
        if self.names and len(self.names) != self.count:
            raise InputError(f"{len(self.names)} names for {self.count} regions")

    @classmethod
    def compacted(cls, labels: Tensor) -> RegionMap:
        """A partition from any whole labels, renumbered in order; labels below 0 are no region."""
        present = distinct(labels)
        if not len(present) or int(present[-1]) >= _MANY:
            inside = labels >= 0
            compact = torch.full(labels.shape, -1, dtype=torch.int64, device=labels.device)
            compact[inside] = torch.searchsorted(present, labels[inside])
            return cls(compact)
        numbers = torch.full((int(present[-1]) + 2,), -1, device=labels.device)
        numbers[present] = torch.arange(len(present), device=labels.device)
        return cls(numbers[labels.clamp_min(-1)])  # index -1 is the last entry, which stays -1

    @property
    def nbytes(self) -> int:
        """Bytes of the labels."""
        return self.labels.nbytes

    @cached_property
    def count(self) -> int:
        """Number of regions."""
        return int(self.labels.amax()) + 1

    @cached_property
    def sizes(self) -> Tensor:
        """Voxels per region, ``(count,)`` int64; with labels per channel, voxels times channels."""
        return torch.bincount(self.labels[self.labels >= 0], minlength=self.count)

    def painted(self, values: Tensor) -> Tensor:
        """A map that has the value of its region at every voxel, 0 outside.

        Args:
            values: ``(..., count)``.

        Returns:
            ``(..., *labels.shape)``, on the device of the values.
        """
        outside = values.new_zeros(*values.shape[:-1], 1)
        # Label -1 indexes the last entry, which is the zero of voxels in no region.
        return torch.cat([values, outside], dim=-1)[..., self.labels.to(values.device)]

    def name(self, region: int) -> str:
        """The name of a region; its number, from 1, if it has none."""
        return self.names[region] if self.names else f"region {region + 1}"


_MANY = 2**22
"""Labels below this are found by counting; sorting all voxels takes twenty times as long."""


def distinct(labels: Tensor) -> Tensor:
    """The labels that occur, ascending, int64, without those below 0."""
    inside = (labels if int(labels.amin()) >= 0 else labels[labels >= 0]).flatten().long()
    if not len(inside) or int(inside.amax()) >= _MANY:
        unique: Tensor = torch.unique(inside)
        return unique
    return torch.bincount(inside).nonzero().flatten()
