"""Directions in the channel space of layers: of concepts, of scores, and sparse ones."""

from voxplain.concepts.directions.concept_direction import ConceptDirection, concept_direction
from voxplain.concepts.directions.direction_records import (
    ConceptDirectionRecord,
    FoundDirectionRecord,
    UnitCountRecord,
)
from voxplain.concepts.directions.directions import Directions, DirectionsRecord
from voxplain.concepts.directions.found_sensitivity import direction_sensitivity
from voxplain.concepts.directions.sensitivity import (
    Sensitivities,
    SensitivitiesRecord,
    SensitivityRecord,
    concept_sensitivity,
)
from voxplain.concepts.directions.sparse_directions import (
    SparseDirectionRecord,
    SparseDirections,
    SparseRecord,
    sparse_directions,
)

__all__ = [
    "ConceptDirection",
    "ConceptDirectionRecord",
    "Directions",
    "DirectionsRecord",
    "FoundDirectionRecord",
    "Sensitivities",
    "SensitivitiesRecord",
    "SensitivityRecord",
    "SparseDirectionRecord",
    "SparseDirections",
    "SparseRecord",
    "UnitCountRecord",
    "concept_direction",
    "concept_sensitivity",
    "direction_sensitivity",
    "sparse_directions",
]
