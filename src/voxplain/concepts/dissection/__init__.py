"""Dissection: agreement of units of a network with concepts."""

from __future__ import annotations

from voxplain.concepts.dissection.agreement import Agreement
from voxplain.concepts.dissection.dissect import Dissection, UnitValues, dissect
from voxplain.concepts.dissection.settings import DissectionSettings
from voxplain.concepts.dissection.slices import best_per_slice
from voxplain.concepts.dissection.tolerance import within_tolerance
from voxplain.concepts.dissection.units import UnitGroup

__all__ = [
    "Agreement",
    "Dissection",
    "DissectionSettings",
    "UnitGroup",
    "UnitValues",
    "best_per_slice",
    "dissect",
    "within_tolerance",
]
