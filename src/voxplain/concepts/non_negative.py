"""Least squares with factors that are not negative."""

from __future__ import annotations

import torch
from torch import Tensor


def improved(factor: Tensor, goal: Tensor, gram: Tensor) -> Tensor:
    """One round of min |X - F G| over F >= 0, column after column of F.

    Paper: Cichocki and Phan, Fast local algorithms for large scale nonnegative matrix and tensor
    factorizations, 2009.

    Args:
        factor: F, ``(N, r)``.
        goal: X G^T, ``(N, r)``.
        gram: G G^T, ``(r, r)``.
    """
    factor = factor.clone()
    for column in range(factor.shape[1]):
        own = gram[column, column].clamp(min=torch.finfo(gram.dtype).tiny)
        step = (goal[:, column] - factor @ gram[:, column]) / own
        factor[:, column] = (factor[:, column] + step).clamp(min=0)
    return factor
