"""The numeric types in which a network may run, and the agreement that half ones must reach."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Literal

import torch
from torch import Tensor, nn

from voxplain.models.hooks import copy_network
from voxplain.models.rest import state_of, weights_sha256

Precision = Literal["auto", "float32", "float64", "bfloat16", "float16"]

HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}
"""The precisions that must agree with float32 before they are used."""
LEAST_AGREEMENT = 0.99
"""Smallest cosine with float32 at which half precision is used."""

_ONE_COPY = threading.Lock()
"""Held while a copy in float64 is made, so that two threads make one."""


def agreement(candidate: Tensor, reference: Tensor) -> float:
    """Cosine between two maps of one pass, -1 to 1; 0 if it is undefined."""
    a, b = candidate.double().flatten(), reference.double().flatten()
    cosine = float(torch.dot(a, b) / (a.norm() * b.norm()))
    return cosine if cosine == cosine else 0.0


def in_float64(network: nn.Module, kept: dict[Hashable, nn.Module]) -> nn.Module:
    """A copy of a network in float64.

    Args:
        network: Left as it was.
        kept: Holds the copy, which is made again when the weights change.
    """
    with _ONE_COPY:
        state = (state_of(network), weights_sha256(network))
        if state not in kept:
            kept.clear()
            kept[state] = copy_network(network).double()
        return kept[state]
