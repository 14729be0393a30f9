"""Concept masks without relation to the image: those of other patients, or shifted ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from voxplain.concepts.dissection.case_masks import CaseMasks
from voxplain.engine.cohort import CohortCase
from voxplain.engine.randomness import generator

FEWEST_DONORS = 5
"""Other patients whose images have the same shape, so that their masks are taken."""
_BYTES = 64 * 2**20
_VOXELS = 2**15
"""Voxels of all held-out cases together on which unrelated masks are compared with units."""
_FEWEST_VOXELS = 2**12
"""Of one case."""


@dataclass(frozen=True, eq=False)
class Donor:
    """Masks of a case on its whole grid, a bit per voxel.

    Attributes:
        key: Random number by which donors are kept.
        patient: Whose.
        shape: Of the image.
        packed: ``(concepts, bytes)``.
        known: ``(concepts,)``.
    """

    key: float
    patient: str
    shape: tuple[int, ...]
    packed: NDArray[np.uint8]
    known: NDArray[np.bool_]


class UnrelatedMasks:
    """Draws of concept masks that have nothing to do with the image they are compared on.

    They are those of other patients at the same voxels where at least 5 of the cases that were
    selected on have the same shape; else the mask of the case itself, moved on by a random number
    of voxels in the order of the voxels of the region of interest, which keeps its size and, but
    for the border of the region, its shape. All cases of a patient are moved alike.

    Args:
        draws: How many.
        seed: Of the draws.
    """

    def __init__(self, draws: int, seed: int) -> None:
        self.draws, self._seed = draws, seed
        self._donors: list[Donor] = []

    def donate(self, case: CohortCase, masks: CaseMasks) -> None:
        """Keeps the masks of a case for other patients; at most 64 MB of all cases together."""
        whole = np.zeros((len(masks.masks), masks.inside.numel()), dtype=bool)
        whole[:, masks.places] = masks.masks
        key = float(torch.rand(1, generator=generator(self._seed, "donor", case.id)))
        shape = tuple(masks.inside.shape)
        packed = np.packbits(whole, axis=1)
        self._donors.append(Donor(key, case.patient, shape, packed, masks.known))
        self._donors.sort(key=lambda donor: donor.key)
        while sum(donor.packed.nbytes for donor in self._donors) > _BYTES:
            self._donors.pop()

    def voxels(self, case: CohortCase, masks: CaseMasks, cases: int) -> NDArray[np.int64]:
        """The voxels of a case, as numbers in its region, on which draws are compared.

        Args:
            case: The case.
            masks: Of the case.
            cases: How many there are.
        """
        count = max(_FEWEST_VOXELS, _VOXELS // max(1, cases))
        if masks.voxels <= count:
            return np.arange(masks.voxels)
        source = generator(self._seed, "null voxels", case.id)
        drawn = torch.randperm(masks.voxels, generator=source)[:count]
        return np.sort(drawn.numpy())

    def of(
        self, case: CohortCase, masks: CaseMasks, concept: int, voxels: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Draws of the mask of one concept at some voxels, ``(draws, voxels)``."""
        source = generator(self._seed, "null", case.patient)
        place = torch.rand(self.draws, generator=source, dtype=torch.float64).numpy()
        donors = [
            donor
            for donor in self._donors
            if donor.shape == tuple(masks.inside.shape)
            and donor.patient != case.patient
            and donor.known[concept]
        ]
        if len({donor.patient for donor in donors}) < FEWEST_DONORS:
            shifts = 1 + np.floor(place * max(1, masks.voxels - 1)).astype(np.int64)
            before = (voxels[None] - shifts[:, None]) % masks.voxels
            return np.asarray(masks.masks[concept][before])
        positions = masks.places[voxels]
        drawn = np.floor(place * len(donors)).astype(np.int64)
        rows = np.stack([_bits(donor.packed[concept], positions) for donor in donors])
        return np.asarray(rows[drawn])


def _bits(packed: NDArray[np.uint8], positions: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Single bits of a packed mask."""
    return np.asarray(packed[positions >> 3] >> (7 - (positions & 7)) & 1, dtype=bool)


@dataclass(frozen=True, eq=False)
class DrawnMasks:
    """Unrelated masks of one concept at some voxels of a case.

    Attributes:
        and_all: ``(draws + 1, voxels)`` of 0 and 1; the last one is 1 everywhere.
        sizes: Voxels of each draw, ``(draws,)``.
    """

    and_all: Tensor
    sizes: NDArray[np.int64]

    @classmethod
    def of(cls, drawn: NDArray[np.bool_]) -> DrawnMasks:
        """The same masks ``(draws, voxels)``."""
        every = np.ones((1, drawn.shape[1]), dtype=bool)
        and_all = torch.from_numpy(np.concatenate([drawn, every])).float()
        return cls(and_all, np.count_nonzero(drawn, axis=1))


class NullCounts:
    """How far the units of one group agree with unrelated masks, summed over cases.

    Args:
        units: Number of units.
        concepts: Number of concepts.
        draws: Number of draws.
    """

    def __init__(self, units: int, concepts: int, draws: int) -> None:
        self.both = np.zeros((units, concepts, draws), dtype=np.float32)
        self.on = np.zeros((units, concepts))
        self.size = np.zeros((concepts, draws))

    def add(self, concept: int, is_on: NDArray[np.bool_], drawn: DrawnMasks, weight: float) -> None:
        """Takes in a case.

        Args:
            concept: Number of the concept.
            is_on: ``(units, voxels)``.
            drawn: Masks of the concept at the same voxels.
            weight: Voxels of the case per voxel looked at.
        """
        both = (torch.from_numpy(is_on).float() @ drawn.and_all.T).numpy()
        self.both[:, concept] += weight * both[:, :-1]
        self.on[:, concept] += weight * both[:, -1]
        self.size[concept] += weight * drawn.sizes

    @property
    def iou(self) -> NDArray[np.float64]:
        """``(units, concepts, draws)``; NaN where both are empty."""
        union = self.on[:, :, None] + self.size[None] - self.both
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.where(union > 0, self.both / union, np.nan))


def pooled_p(observed: NDArray[np.float64], null: NDArray[np.float64]) -> NDArray[np.float64]:
    """How often unrelated masks of any unit reach an agreement, ``(units, concepts)``.

    Args:
        observed: ``(units, concepts)``; NaN stays.
        null: ``(units, concepts, draws)``; draws of all units with one concept form its null.
    """
    p = np.full(observed.shape, np.nan)
    for concept in range(observed.shape[1]):
        known = null[:, concept][np.isfinite(null[:, concept])]
        is_known = np.isfinite(observed[:, concept])
        if len(known) and is_known.any():
            below = np.searchsorted(np.sort(known), observed[is_known, concept], side="left")
            p[is_known, concept] = (1 + len(known) - below) / (1 + len(known))
    return p
