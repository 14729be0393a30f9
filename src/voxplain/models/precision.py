"""The numeric type a network runs in, and the gate that half precision has to pass."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

Precision = Literal["auto", "float32", "float64", "bfloat16", "float16"]

_HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}
GATE = 0.99


def resolve_precision(
    precision: Precision, device: torch.device, dtype: torch.dtype = torch.float32
) -> Precision:
    """What ``auto`` means on a device: bfloat16 is worth a try on a GPU, never on a CPU.

    A network with float64 weights runs in float64 unless something else is asked for.
    """
    if precision != "auto":
        return precision
    if dtype is torch.float64:
        return "float64"
    capable = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return "bfloat16" if capable else "float32"


def is_half(precision: Precision) -> bool:
    """Whether a precision must agree with float32 before it is used."""
    return precision in _HALF


@contextlib.contextmanager
def running_in(precision: Precision, device: torch.device) -> Iterator[None]:
    """Runs the calls of a network under autocast where the precision is a half one."""
    if not is_half(precision):
        yield
        return
    with torch.autocast(device.type, dtype=_HALF[precision]):
        yield


def agreement(candidate: Tensor, reference: Tensor) -> float:
    """Cosine between two maps of one pass; NaN and all-zero maps count as no agreement."""
    a, b = candidate.double().flatten(), reference.double().flatten()
    cosine = float(torch.dot(a, b) / (a.norm() * b.norm()))
    return cosine if cosine == cosine else 0.0
