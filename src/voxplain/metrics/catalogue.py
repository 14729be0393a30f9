"""Every metric of the package: importing this module fills the registry."""

from voxplain.metrics import agreement_with_drops, faithfulness

__all__ = ["agreement_with_drops", "faithfulness"]
