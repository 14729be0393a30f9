"""The concepts that a network is asked about, with unique names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from voxplain.concepts.bank import derived, facts, intensities, labels, place
from voxplain.concepts.bank.spec import ConceptSpec, KnownConcepts
from voxplain.concepts.concept import Concept
from voxplain.errors import ConfigError, nearest

AnyConcepts = Annotated[
    labels.LabelConcepts
    | labels.FileConcepts
    | derived.BoundaryConcept
    | derived.RimConcept
    | derived.RingConcept
    | derived.CoreConcept
    | place.SideConcepts
    | place.MirrorConcept
    | place.HemisphereConcepts
    | place.SliceConcepts
    | place.RadiusConcepts
    | intensities.BandConcepts
    | intensities.HounsfieldConcepts
    | intensities.GradientConcepts
    | intensities.EntropyConcept
    | intensities.ForegroundConcepts
    | intensities.BackgroundConcept
    | intensities.EdgeConcept
    | facts.FactConcepts,
    Field(discriminator="kind"),
]
"""An entry of a concept bank by its ``kind``."""

KINDS = (
    "labels",
    "file",
    "boundary",
    "rim",
    "ring",
    "core",
    "sides",
    "mirror",
    "hemispheres",
    "slices",
    "radius",
    "band",
    "hu",
    "gradient",
    "entropy",
    "foreground",
    "background",
    "edge",
    "fact",
)
_ADAPTER: TypeAdapter[ConceptSpec] = TypeAdapter(AnyConcepts)

Entry = ConceptSpec | Concept | Mapping[str, Any]
"""Settings, a concept that somebody has made, or what a study file says."""


@dataclass(frozen=True)
class ConceptBank:
    """Concepts with unique names.

    Attributes:
        concepts: In order.
    """

    concepts: tuple[Concept, ...]

    def __post_init__(self) -> None:
        known = KnownConcepts()
        for concept in self.concepts:
            known.add(concept)

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> ConceptBank:
        """The concepts of some entries; an entry may refer to concepts of those before it.

        Args:
            entries: Settings, mappings with a ``kind``, or concepts.

        Raises:
            ConfigError: If an entry does not fit, with its number.
        """
        known, made = KnownConcepts(), list[Concept]()
        for number, entry in enumerate(entries):
            try:
                added = _concepts(entry, known)
                for concept in added:
                    known.add(concept)
            except ConfigError as error:
                raise ConfigError(f"concepts[{number}]: {error}") from None
            made.extend(added)
        return cls(tuple(made))

    @property
    def names(self) -> tuple[str, ...]:
        """Of the concepts, in order."""
        return tuple(concept.name for concept in self.concepts)

    @property
    def masks(self) -> tuple[Concept, ...]:
        """Those that are parts of an image."""
        return tuple(concept for concept in self.concepts if concept.kind == "mask")

    @property
    def images(self) -> tuple[Concept, ...]:
        """Those that hold for whole images."""
        return tuple(concept for concept in self.concepts if concept.kind == "image")

    def only(self, names: Iterable[str]) -> ConceptBank:
        """Some of the concepts, in the order of the bank."""
        chosen = {self[name].name for name in names}
        return ConceptBank(tuple(each for each in self.concepts if each.name in chosen))

    def __getitem__(self, name: str) -> Concept:
        """The concept of a name.

        Raises:
            ConfigError: With the nearest names, if there is none.
        """
        for concept in self.concepts:
            if concept.name == name:
                return concept
        raise ConfigError(f"there is no concept {name!r}; {nearest(name, self.names)}")

    def __iter__(self) -> Iterator[Concept]:
        return iter(self.concepts)

    def __len__(self) -> int:
        return len(self.concepts)


def parse_concepts(entry: Mapping[str, Any]) -> ConceptSpec:
    """Settings of concepts from what a study file says.

    Raises:
        ConfigError: If the kind is unknown (with the nearest ones) or a parameter does not fit.
    """
    if entry.get("kind") not in KINDS:
        kind = entry.get("kind")
        raise ConfigError(f"unknown kind of concept {kind!r}; {nearest(str(kind), KINDS)}")
    try:
        return _ADAPTER.validate_python(entry)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"{path}: unknown parameter") from None
        raise ConfigError(f"{path}: {first['msg']}") from None


def _concepts(entry: Entry, known: KnownConcepts) -> tuple[Concept, ...]:
    if isinstance(entry, Concept):
        return (entry,)
    spec = entry if isinstance(entry, ConceptSpec) else parse_concepts(entry)
    return spec.concepts(known)
