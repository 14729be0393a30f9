"""The numeric types in which a network may run, and the agreement that half ones must reach."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Precision = Literal["auto", "float32", "float64", "bfloat16", "float16"]

HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}
"""The precisions that must agree with float32 before they are used."""
LEAST_AGREEMENT = 0.99
"""Smallest cosine with float32 at which half precision is used."""


def agreement(candidate: Tensor, reference: Tensor) -> float:
    """Cosine between two maps of one pass, -1 to 1; 0 if it is undefined."""
    a, b = candidate.double().flatten(), reference.double().flatten()
    cosine = float(torch.dot(a, b) / (a.norm() * b.norm()))
    return cosine if cosine == cosine else 0.0
