"""Dissection: agreement of units of a network with concepts."""

from __future__ import annotations

from voxplain.concepts.dissection.agreement import Agreement
from voxplain.concepts.dissection.dissect import Dissection, dissect
from voxplain.concepts.dissection.settings import DissectionSettings

__all__ = ["Agreement", "Dissection", "DissectionSettings", "dissect"]
