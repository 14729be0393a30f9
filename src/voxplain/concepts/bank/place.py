"""Concepts by place: the sides of a structure, its mirror image, slices, shells, hemispheres."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from voxplain.concepts.bank.spec import ConceptSpec, KnownConcepts, MaskOf, a_mask
from voxplain.concepts.concept import Concept
from voxplain.engine.cohort import CohortCase
from voxplain.errors import InputError

Direction = Literal["anterior", "posterior", "left", "right", "superior", "inferior"]
DIRECTIONS: tuple[Direction, ...] = (
    "anterior",
    "posterior",
    "left",
    "right",
    "superior",
    "inferior",
)
_OPPOSITE = {"A": "P", "P": "A", "L": "R", "R": "L", "S": "I", "I": "S"}


class SideConcepts(ConceptSpec):
    """The parts of a structure in front of, behind, left of ... its own center.

    Of a border these are the lateral or superior boundary of a tumor. Along an axis that an image
    does not have, or has one voxel on, they are not known.

    Attributes:
        of: A concept.
        directions: Which sides.
    """

    kind: Literal["sides"] = "sides"
    of: str
    directions: tuple[Direction, ...] = DIRECTIONS

    def concepts(self, known: KnownConcepts) -> tuple[Concept, ...]:
        """One concept per side, ``"<of> anterior"``."""
        base = known.mask(self.of)
        return tuple(
            a_mask(
                f"{self.of} {side}",
                _on_side(base, side),
                f"{side} of the center of {self.of}",
                base.group,
            )
            for side in self.directions
        )


class MirrorConcept(ConceptSpec):
    """The mirror image of a structure in the other hemisphere, where it is not itself.

    The plane is the middle of the foreground along the axis from left to right.

    Attributes:
        of: A concept.
        name: ``"<of> mirrored"`` if None.
    """

    kind: Literal["mirror"] = "mirror"
    of: str
    name: str | None = None

    def concepts(self, known: KnownConcepts) -> tuple[Concept, ...]:
        """The mirrored mask without the mask, inside of the foreground."""
        base = known.mask(self.of)
        name = self.name or f"{self.of} mirrored"
        words = f"{self.of} mirrored at the middle of the foreground"
        return (a_mask(name, _mirrored(base), words, base.group),)


class HemisphereConcepts(ConceptSpec):
    """The left and the right half of the foreground."""

    kind: Literal["hemispheres"] = "hemispheres"

    def concepts(self, known: KnownConcepts) -> tuple[Concept, ...]:
        """Two concepts, ``"left hemisphere"`` and ``"right hemisphere"``."""
        return tuple(
            a_mask(f"{side} hemisphere", _half(side), f"{side} half of the foreground", "place")
            for side in ("left", "right")
        )


class SliceConcepts(ConceptSpec):
    """Parts of the foreground along an axis of the patient, such as thirds from bottom to top.

    Attributes:
        toward: Where the axis points.
        parts: Of equal extent.
    """

    kind: Literal["slices"] = "slices"
    toward: Direction = "superior"
    parts: int = Field(default=3, ge=2, le=20)

    def concepts(self, known: KnownConcepts) -> tuple[Concept, ...]:
        """One concept per part, ``"superior 1 of 3"`` being the first."""
        return tuple(
            a_mask(
                f"{self.toward} {number + 1} of {self.parts}",
                _part(self.toward, number, self.parts),
                f"part {number + 1} of {self.parts} of the foreground toward {self.toward}",
                "place",
            )
            for number in range(self.parts)
        )


class RadiusConcepts(ConceptSpec):
    """Shells of the foreground around its center, of equal numbers of voxels.

    Attributes:
        parts: Number of shells.
    """

    kind: Literal["radius"] = "radius"
    parts: int = Field(default=3, ge=2, le=20)

    def concepts(self, known: KnownConcepts) -> tuple[Concept, ...]:
        """One concept per shell, ``"radius 1 of 3"`` being the innermost."""
        return tuple(
            a_mask(
                f"radius {number + 1} of {self.parts}",
                _shell(number, self.parts),
                f"shell {number + 1} of {self.parts} around the center of the foreground",
                "place",
            )
            for number in range(self.parts)
        )


def _axis(case: CohortCase, direction: str) -> tuple[int, int]:
    """The axis of an image along a direction of the patient, and 1 or -1 for its sense.

    Raises:
        InputError: If the orientation is unknown, or the image has no extent along it.
    """
    grid, letter = case.image.grid, direction[0].upper()
    for axis, code in enumerate(grid.orientation):
        if code in (letter, _OPPOSITE[letter]) and grid.shape[axis] > 1:
            return axis, 1 if code == letter else -1
    missing = "no extent along this axis" if grid.orientation else "no known orientation"
    raise InputError(f"{direction} is not defined: the image has {missing}")


def _along(case: CohortCase, direction: str) -> Tensor:
    """The voxel index along a direction of the patient, growing toward it, broadcastable."""
    axis, sense = _axis(case, direction)
    shape = case.image.grid.shape
    index = torch.arange(shape[axis], dtype=torch.float64) * sense
    return index.view([-1 if each == axis else 1 for each in range(len(shape))])


def _on_side(base: Concept, side: str) -> MaskOf:
    def compute(case: CohortCase) -> Tensor | None:
        mask, along = base.of(case), _along(case, side)
        if mask is None or not bool(mask.any()):
            return mask
        return mask & (along > along.expand(mask.shape)[mask].mean())

    return compute


def _half(side: str) -> MaskOf:
    def compute(case: CohortCase) -> Tensor:
        inside, along = case.foreground, _along(case, side)
        ends = along.expand(inside.shape)[inside]
        return inside & (along > (ends.min() + ends.max()) / 2)

    return compute


def _part(toward: str, number: int, parts: int) -> MaskOf:
    def compute(case: CohortCase) -> Tensor:
        inside, along = case.foreground, _along(case, toward)
        ends = along.expand(inside.shape)[inside]
        place = (along - ends.min()) / (ends.max() - ends.min() + 1) * parts
        return inside & (place.floor() == number)

    return compute


def _shell(number: int, parts: int) -> MaskOf:
    def compute(case: CohortCase) -> Tensor:
        inside = case.foreground
        index = inside.nonzero().double() * torch.tensor(case.image.grid.spacing).double()
        radius = (index - index.mean(0)).square().sum(1).sqrt()
        rank = radius.argsort(stable=True).argsort()
        shell = torch.zeros_like(inside)
        shell[inside] = rank * parts // len(rank) == number
        return shell

    return compute


def _mirrored(base: Concept) -> MaskOf:
    def compute(case: CohortCase) -> Tensor | None:
        mask, (axis, _) = base.of(case), _axis(case, "left")
        if mask is None:
            return None
        inside = case.foreground
        used = inside.nonzero()[:, axis]
        total = int(used.min() + used.max())
        source = total - torch.arange(mask.shape[axis])
        exists = (source >= 0) & (source < mask.shape[axis])
        other = mask.index_select(axis, source.clamp(0, mask.shape[axis] - 1))
        shape = [-1 if each == axis else 1 for each in range(mask.ndim)]
        return other & exists.view(shape) & inside & ~mask

    return compute
