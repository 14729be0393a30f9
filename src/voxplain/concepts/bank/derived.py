"""Concepts by the distance to the border of another one: borders, rims, rings and cores."""

from __future__ import annotations

from typing import Literal

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
        base = known.mask(self.of)
        mask = near_border(known, self.of, self.width, lambda d, width: d.abs() <= width)
        provenance = f"at most {_words(self.width)} from the border of {self.of}"
        return (a_mask(self.name or f"{self.of} boundary", mask, provenance, base.group),)


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
        base = known.mask(self.of)
        mask = near_border(known, self.of, self.width, lambda d, width: (d < 0) & (d >= -width))
        provenance = f"inside of {self.of}, at most {_words(self.width)} from its border"
        return (a_mask(self.name or f"{self.of} rim", mask, provenance, base.group),)


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
        base = known.mask(self.of)
        mask = near_border(known, self.of, self.within, lambda d, within: (d > 0) & (d <= within))
        provenance = f"outside of {self.of}, at most {_words(self.within)} from its border"
        name = self.name or f"{self.of} ring {_words(self.within)}"
        return (a_mask(name, mask, provenance, base.group),)


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
        base = known.mask(self.of)
        mask = near_border(known, self.of, self.depth, lambda d, depth: d < -depth)
        provenance = f"inside of {self.of}, more than {_words(self.depth)} from its border"
        return (a_mask(self.name or f"{self.of} core", mask, provenance, base.group),)


def _words(length: int | str) -> str:
    if isinstance(length, str):
        return length.strip()
    return f"{length} voxel{'s' * (length != 1)}"
