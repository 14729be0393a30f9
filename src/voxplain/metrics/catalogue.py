"""Every metric of the package: importing this module fills the registry."""

from voxplain.metrics import (
    agreement_with_drops,
    complexity,
    faithfulness,
    localization,
    robustness,
    segmentation,
)

__all__ = [
    "agreement_with_drops",
    "complexity",
    "faithfulness",
    "localization",
    "robustness",
    "segmentation",
]
