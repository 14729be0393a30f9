"""The numeric type in which a network runs, and the agreement that half precision must reach."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

Precision = Literal["auto", "float32", "float64", "bfloat16", "float16"]

_HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}
LEAST_AGREEMENT = 0.99
"""Smallest cosine with float32 at which half precision is used."""


def resolve_precision(
    precision: Precision, device: torch.device, dtype: torch.dtype = torch.float32
) -> Precision:
    """The precision itself; for ``auto`` bfloat16 on a GPU that has it, else float32.

    Args:
        precision: As given for the model.
        device: Where the network runs.
        dtype: Type of its parameters; with float64, ``auto`` is float64.
    """
    if precision != "auto":
        return precision
    if dtype is torch.float64:
        return "float64"
    capable = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return "bfloat16" if capable else "float32"


def is_half(precision: Precision) -> bool:
    """Whether a precision is a half one, which must agree with float32 before it is used."""
    return precision in _HALF


@contextlib.contextmanager
def running_in(precision: Precision, device: torch.device) -> Iterator[None]:
    """Autocast for the calls of a network inside, if the precision is a half one."""
    if not is_half(precision):
        yield
        return
    with torch.autocast(device.type, dtype=_HALF[precision]):
        yield


def agreement(candidate: Tensor, reference: Tensor) -> float:
    """Cosine between two maps of one pass, -1 to 1; 0 if it is undefined."""
    a, b = candidate.double().flatten(), reference.double().flatten()
    cosine = float(torch.dot(a, b) / (a.norm() * b.norm()))
    return cosine if cosine == cosine else 0.0
