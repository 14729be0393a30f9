"""The masks of all concepts for one case inside of a region of interest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from voxplain.concepts.case_reading import mask_of
from voxplain.concepts.concept import Concept
from voxplain.concepts.places import image_foreground, region_of
from voxplain.engine.cohort import CohortCase
from voxplain.errors import VoxplainError

Region = Literal["foreground", "image"] | str
"""Foreground, whole image, or the name of a concept that is the region."""

_COMBINATIONS = 512
"""Combinations of concepts that are counted together."""
_CONCEPTS = 62
"""Concepts whose combination fits into a number."""


class Remarks:
    """Sentences about what was left out, each kept once, with the number of cases."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def append(self, sentence: str) -> None:
        """Takes in a sentence."""
        self._counts[sentence] = self._counts.get(sentence, 0) + 1

    @property
    def sentences(self) -> tuple[str, ...]:
        """In the order in which they came."""
        return tuple(self._counts)


@dataclass(frozen=True, eq=False)
class CaseMasks:
    """What is known of a case.

    Attributes:
        inside: The region of interest, ``(*spatial)`` of bool.
        masks: ``(concepts, voxels)`` of bool inside of the region.
        known: ``(concepts,)``: whether a concept is known for the case.
    """

    inside: Tensor
    masks: NDArray[np.bool_]
    known: NDArray[np.bool_]

    @property
    def voxels(self) -> int:
        """Number of voxels in the region."""
        return int(self.masks.shape[1])

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """The voxels of the region as positions in the flattened image."""
        return np.flatnonzero(self.inside.numpy())


@dataclass(frozen=True, eq=False)
class Combinations:
    """Voxels grouped by the combination of concepts that they show.

    Attributes:
        first: Number of the first concept among those that are counted together.
        table: ``(combinations, concepts)`` of 0 and 1.
        index: The combination of every voxel, ``(voxels,)``.
    """

    first: int
    table: NDArray[np.float64]
    index: NDArray[np.int64]


def case_masks(
    case: CohortCase, concepts: Sequence[Concept], inside: Tensor, remarks: Remarks
) -> CaseMasks:
    """The masks of concepts for one case.

    A concept that cannot be computed is not known for the case, with a remark.

    Args:
        case: The case.
        concepts: Parts of images.
        inside: The region of interest.
        remarks: Takes sentences about concepts that fail.
    """
    found = [known_mask(concept, case, remarks) for concept in concepts]
    known = np.array([mask is not None for mask in found], dtype=bool)
    shape = (len(concepts), int(inside.sum()))
    masks = np.zeros(shape, dtype=bool)
    for row, mask in zip(masks, found, strict=True):
        if mask is not None:
            row[:] = mask[inside].numpy()
    return CaseMasks(inside, masks, known)


def known_mask(concept: Concept, case: CohortCase, remarks: Remarks) -> Tensor | None:
    """The mask of a concept for a case as bool; None with a remark where it cannot be computed."""
    try:
        mask = mask_of(concept, case)
    except VoxplainError as error:
        remarks.append(f"concept {concept.name!r} is not known for some cases: {error}")
        return None
    return None if mask is None else mask.bool()


def combinations(masks: NDArray[np.bool_]) -> list[Combinations]:
    """The combinations of concepts that voxels show, some concepts after others.

    Args:
        masks: ``(concepts, voxels)``.
    """
    return [
        part
        for first in range(0, len(masks), _CONCEPTS)
        for part in _divided(first, masks[first : first + _CONCEPTS])
    ]


def coded(masks: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The combination of up to 62 concepts at every voxel as a number, concept i being bit i."""
    codes = np.zeros(masks.shape[1], dtype=np.int64)
    for bit, mask in enumerate(masks):
        codes |= mask.astype(np.int64) << bit
    return codes


def bits_of(codes: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    """The concepts of such numbers, ``(codes, count)``."""
    return (codes[:, None] >> np.arange(count) & 1).astype(bool)


def _divided(first: int, masks: NDArray[np.bool_]) -> list[Combinations]:
    """All concepts together, or in halves where they show too many combinations."""
    together, half = _together(first, masks), len(masks) // 2
    if half == 0 or len(together.table) <= _COMBINATIONS:
        return [together]
    return _divided(first, masks[:half]) + _divided(first + half, masks[half:])


def _together(first: int, masks: NDArray[np.bool_]) -> Combinations:
    codes, index = np.unique(coded(masks), return_inverse=True)
    return Combinations(first, bits_of(codes, len(masks)).astype(np.float64), index.reshape(-1))


def compared_region(case: CohortCase, region: Concept | Region) -> Tensor:
    """Where units and concepts are compared, ``(*spatial)`` of bool.

    Raises:
        InputError: If it is empty, not known for the case, or on another grid than the image.
    """
    if isinstance(region, Concept):
        return region_of(case, partial(_concept_region, region))
    return region_of(case, image_foreground if region == "foreground" else _whole_image)


def _concept_region(concept: Concept, case: CohortCase) -> Tensor:
    mask = mask_of(concept, case)
    return torch.zeros(case.image.grid.shape) if mask is None else mask


def _whole_image(case: CohortCase) -> Tensor:
    return torch.ones(case.image.grid.shape, dtype=torch.bool)
