"""Every metric of the package, one file per idea: importing this module fills the registry."""

from __future__ import annotations

from voxplain.metrics import randomization
from voxplain.metrics.families import (
    agreement,
    calibration,
    common_level,
    completeness,
    complexity,
    consistency,
    continuity,
    drop_correlation,
    faithfulness,
    fidelity,
    focus,
    infidelity,
    invariance,
    lesions,
    localization,
    representation,
    robustness,
    segmentation,
    uncertainty,
)

__all__ = [
    "agreement",
    "calibration",
    "common_level",
    "completeness",
    "complexity",
    "consistency",
    "continuity",
    "drop_correlation",
    "faithfulness",
    "fidelity",
    "focus",
    "infidelity",
    "invariance",
    "lesions",
    "localization",
    "randomization",
    "representation",
    "robustness",
    "segmentation",
    "uncertainty",
]
