"""Directions that are found without concepts: parts of activations, and groups of units."""

from voxplain.concepts.discovery.discover import (
    ComponentRecord,
    Discovery,
    DiscoveryRecord,
    discover,
)
from voxplain.concepts.stability import CandidateRecord

__all__ = ["CandidateRecord", "ComponentRecord", "Discovery", "DiscoveryRecord", "discover"]
