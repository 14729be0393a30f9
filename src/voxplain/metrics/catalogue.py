"""Every metric of the package: importing this module fills the registry."""

from voxplain.metrics import (
    agreement,
    agreement_with_drops,
    calibration,
    complexity,
    consistency,
    continuity,
    faithfulness,
    fidelity,
    invariance,
    localization,
    mosaic,
    randomization,
    representation,
    robustness,
    segmentation,
    uncertainty,
)

__all__ = [
    "agreement",
    "agreement_with_drops",
    "calibration",
    "complexity",
    "consistency",
    "continuity",
    "faithfulness",
    "fidelity",
    "invariance",
    "localization",
    "mosaic",
    "randomization",
    "representation",
    "robustness",
    "segmentation",
    "uncertainty",
]
