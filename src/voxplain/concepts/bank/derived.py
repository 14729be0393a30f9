"""Concepts by the distance to the border of another one: borders, rims, rings and cores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from voxplain.concepts.bank.spec import ConceptSpec, KnownConcepts, a_mask, near_border
from voxplain.concepts.concept import Concept
from voxplain.extents import Length


class BoundaryConcept(ConceptSpec):
    """The border of a structure: voxels that are no farther from it than a width, on both sides.

    Attributes:
        of: A concept.
        width: From the border outward and inward.
        name: ``"<of> boundary"`` if None.
    """

    kind: Literal["boundary"] = "boundary"
    of: str
    width: Length = 1
    name: str | None = None

    def concepts(self, known: KnownConcepts) -> tuple[Concept, ...]:
        """abs(d) <= width."""
        provenance = f"at most {_words(self.width)} from the border of {self.of}"
        name = self.name or f"{self.of} boundary"
        return _derived(
            known, self.of, name, provenance, self.width, lambda d, width: d.abs() <= width
        )


class RimConcept(ConceptSpec):
    """The outermost layer inside of a structure.

    Attributes:
        of: A concept.
        width: From the border inward.
        name: ``"<of> rim"`` if None.
    """

    kind: Literal["rim"] = "rim"
    of: str
    width: Length
    name: str | None = None

    def concepts(self, known: KnownConcepts) -> tuple[Concept, ...]:
        """-width <= d < 0."""
        provenance = f"inside of {self.of}, at most {_words(self.width)} from its border"
        name = self.name or f"{self.of} rim"
        return _derived(
            known, self.of, name, provenance, self.width, lambda d, width: (d < 0) & (d >= -width)
        )


class RingConcept(ConceptSpec):
    """What lies around a structure up to a distance, such as the tissue around a tumor.

    Attributes:
        of: A concept.
        within: From the border outward.
        name: ``"<of> ring <within>"`` if None.
    """

    kind: Literal["ring"] = "ring"
    of: str
    within: Length
    name: str | None = None

    def concepts(self, known: KnownConcepts) -> tuple[Concept, ...]:
        """0 < d <= within."""
        provenance = f"outside of {self.of}, at most {_words(self.within)} from its border"
        name = self.name or f"{self.of} ring {_words(self.within)}"
        return _derived(
            known, self.of, name, provenance, self.within, lambda d, within: (d > 0) & (d <= within)
        )


class CoreConcept(ConceptSpec):
    """What is left of a structure when its outermost layer is taken away.

    Attributes:
        of: A concept.
        depth: Of the layer that is taken away.
        name: ``"<of> core"`` if None.
    """

    kind: Literal["core"] = "core"
    of: str
    depth: Length
    name: str | None = None

    def concepts(self, known: KnownConcepts) -> tuple[Concept, ...]:
        """D < -depth."""
        provenance = f"inside of {self.of}, more than {_words(self.depth)} from its border"
        name = self.name or f"{self.of} core"
        return _derived(known, self.of, name, provenance, self.depth, lambda d, depth: d < -depth)


def _derived(
    known: KnownConcepts,
    of: str,
    name: str,
    provenance: str,
    length: Length,
    within: Callable[[Tensor, float], Tensor],
) -> tuple[Concept, ...]:
    """The voxels whose signed distance to the border of a concept fits a length."""
    mask = near_border(known, of, length, within)
    return (a_mask(name, mask, provenance, known.mask(of).group),)


def _words(length: int | str) -> str:
    if isinstance(length, str):
        return length.strip()
    return f"{length} voxel{'s' * (length != 1)}"
