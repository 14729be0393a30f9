"""Uncertainty of a prediction: sampled, split by its source, and held against errors."""

from __future__ import annotations

from voxplain.concepts.uncertainty.estimate import uncertainty
from voxplain.concepts.uncertainty.over_cases import uncertainty_over_cases
from voxplain.concepts.uncertainty.result import Uncertainty
from voxplain.concepts.uncertainty.sampling import Augmentation, DeepEnsemble, MonteCarloDropout

__all__ = [
    "Augmentation",
    "DeepEnsemble",
    "MonteCarloDropout",
    "Uncertainty",
    "uncertainty",
    "uncertainty_over_cases",
]
