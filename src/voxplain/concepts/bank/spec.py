"""What a bank of concepts is made of: settings by kind, and the concepts that are known so far."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

import torch
from pydantic import BaseModel, ConfigDict
from scipy import ndimage
from torch import Tensor

from voxplain.concepts.concept import Concept, Status
from voxplain.engine.cohort import CohortCase
from voxplain.errors import ConfigError, nearest
from voxplain.extents import measured

MaskOf = Callable[[CohortCase], Tensor | None]


class KnownConcepts:
    """The concepts that were made before, which others are derived from."""

    def __init__(self, concepts: Iterable[Concept] = ()) -> None:
        self._concepts = {concept.name: concept for concept in concepts}
        self._case: CohortCase | None = None
        self._distances: dict[tuple[str, tuple[float, ...]], Tensor | None] = {}

    def add(self, concept: Concept) -> None:
        """Takes in one more.

        Raises:
            ConfigError: If another one has its name.
        """
        if concept.name in self._concepts:
            raise ConfigError(f"two concepts have the name {concept.name!r}; give one another name")
        self._concepts[concept.name] = concept

    def __getitem__(self, name: str) -> Concept:
        """The concept of a name.

        Raises:
            ConfigError: With the nearest names, if there is none.
        """
        if name not in self._concepts:
            raise ConfigError(
                f"there is no concept {name!r} before this one; {nearest(name, self._concepts)}"
            )
        return self._concepts[name]

    def mask(self, name: str) -> Concept:
        """The concept of a name, which has to be a part of an image.

        Raises:
            ConfigError: If there is none, or it holds for whole images.
        """
        concept = self[name]
        if concept.kind != "mask":
            raise ConfigError(f"{name!r} holds for whole images and has no place in them")
        return concept

    def distance(self, name: str, case: CohortCase, length: int | str) -> tuple[Tensor, float]:
        """Signed distance to the border of a concept, negative inside, and a length in its unit.

        It is that of voxel centers to the nearest center on the other side.

        Raises:
            ConfigError: If millimeters are asked for and the physical size is unknown.
        """
        value, spacing = measured(length, case.image.rank, case.image.grid.spacing_mm)
        if case is not self._case:
            self._case, self._distances = case, {}
        key = (name, spacing)
        if key not in self._distances:
            self._distances[key] = signed_distance(self[name].of(case), spacing)
        found = self._distances[key]
        return (torch.empty(0) if found is None else found), value


class ConceptSpec(BaseModel, ABC):
    """One entry of a concept bank as a study states it; its fields are the parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str

    @abstractmethod
    def concepts(self, known: KnownConcepts) -> tuple[Concept, ...]:
        """The concepts of this entry.

        Args:
            known: Those of the entries before.

        Raises:
            ConfigError: If it refers to a concept that is not known.
        """


def signed_distance(mask: Tensor | None, spacing: tuple[float, ...]) -> Tensor | None:
    """Distance to the border of a mask, negative inside; infinite where there is no border.

    Args:
        mask: ``(*spatial)`` of bool; None stays None.
        spacing: Size of a voxel along each axis.

    Returns:
        ``(*spatial)`` float32, in the unit of the spacing.
    """
    if mask is None:
        return None
    inside = mask.cpu().numpy().astype(bool)
    if inside.all() or not inside.any():
        return torch.full(mask.shape, -torch.inf if inside.all() else torch.inf)
    outer = ndimage.distance_transform_edt(~inside, sampling=spacing)
    inner = ndimage.distance_transform_edt(inside, sampling=spacing)
    return torch.from_numpy(outer - inner).float()


def near_border(
    known: KnownConcepts, name: str, length: int | str, within: Callable[[Tensor, float], Tensor]
) -> MaskOf:
    """A mask by the signed distance to the border of another concept."""

    def compute(case: CohortCase) -> Tensor | None:
        distance, limit = known.distance(name, case, length)
        return within(distance, limit) if distance.numel() else None

    return compute


def a_mask(
    name: str, compute: MaskOf, provenance: str, group: str, status: Status = "derived"
) -> Concept:
    """A concept that is a part of an image."""
    return Concept(name, "mask", status, provenance, compute, group)
