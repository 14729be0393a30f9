"""Trained folders of nnU-Net v2 as networks."""

from __future__ import annotations

from voxplain.models.loading.nnunet.folder import Fold, Folds, open_nnunet

__all__ = ["Fold", "Folds", "open_nnunet"]
