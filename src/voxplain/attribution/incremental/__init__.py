"""Exact outputs for images that differ from one known image in a box, at the cost of its cone."""

from voxplain.attribution.incremental.network import Incremental
from voxplain.attribution.incremental.trial import Work, work, worthwhile

__all__ = ["Incremental", "Work", "work", "worthwhile"]
