"""The concept bank: masks and facts of images with names and provenance."""

from __future__ import annotations

from voxplain.concepts.bank.bank import AnyConcepts, ConceptBank, parse_concepts
from voxplain.concepts.bank.derived import (
    BoundaryConcept,
    CoreConcept,
    RimConcept,
    RingConcept,
)
from voxplain.concepts.bank.facts import FactConcepts
from voxplain.concepts.bank.intensities import (
    BackgroundConcept,
    BandConcepts,
    EdgeConcept,
    EntropyConcept,
    ForegroundConcepts,
    GradientConcepts,
    HounsfieldConcepts,
)
from voxplain.concepts.bank.labels import FileConcepts, LabelConcepts
from voxplain.concepts.bank.place import (
    HemisphereConcepts,
    MirrorConcept,
    RadiusConcepts,
    SideConcepts,
    SliceConcepts,
)
from voxplain.concepts.bank.spec import ConceptSpec, KnownConcepts, signed_distance

__all__ = [
    "AnyConcepts",
    "BackgroundConcept",
    "BandConcepts",
    "BoundaryConcept",
    "ConceptBank",
    "ConceptSpec",
    "CoreConcept",
    "EdgeConcept",
    "EntropyConcept",
    "FactConcepts",
    "FileConcepts",
    "ForegroundConcepts",
    "GradientConcepts",
    "HemisphereConcepts",
    "HounsfieldConcepts",
    "KnownConcepts",
    "LabelConcepts",
    "MirrorConcept",
    "RadiusConcepts",
    "RimConcept",
    "RingConcept",
    "SideConcepts",
    "SliceConcepts",
    "parse_concepts",
    "signed_distance",
]
