"""Trails: paths of links from the image to the answer, each validated by intervention."""

from voxplain.concepts.trails.find import Trails, TrailSettings, ValidatedTrail, trails
from voxplain.concepts.trails.graph import ConceptGraph, concept_graph
from voxplain.concepts.trails.paths import Trail, best_trails, sum_of_paths
from voxplain.concepts.trails.record import TrailsRecord, graphml, trails_record, write_trails
from voxplain.concepts.trails.strip import TrailStrip, trail_strip
from voxplain.concepts.trails.validation import Validation, validate

__all__ = [
    "ConceptGraph",
    "Trail",
    "TrailSettings",
    "TrailStrip",
    "Trails",
    "TrailsRecord",
    "ValidatedTrail",
    "Validation",
    "best_trails",
    "concept_graph",
    "graphml",
    "sum_of_paths",
    "trail_strip",
    "trails",
    "trails_record",
    "validate",
    "write_trails",
]
