"""Interventions: what becomes of the answer when units or image regions are replaced."""

from voxplain.concepts.interventions.ablation import Ablation, AblationSettings, unit_ablation
from voxplain.concepts.interventions.record import InterventionsRecord, interventions_record
from voxplain.concepts.interventions.region_swap import SwapEffect, region_swap

__all__ = [
    "Ablation",
    "AblationSettings",
    "InterventionsRecord",
    "SwapEffect",
    "interventions_record",
    "region_swap",
    "unit_ablation",
]
