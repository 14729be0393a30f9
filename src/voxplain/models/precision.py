"""The numeric types in which a network may run, and how far a lower one agrees with float32."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

import torch
from torch import Tensor, nn

from voxplain.models.hooks import copy_network
from voxplain.models.rest import state_of, weights_sha256

Precision = Literal["auto", "float32", "float64", "tf32", "bfloat16", "float16"]

HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}
"""Those that run under autocast."""
LOW = ("tf32", *HALF)
"""Those that must agree with float32 before they are used."""

_ONE_COPY = threading.Lock()
"""Held while a copy in float64 is made, so that two threads make one."""


def agreement(candidate: Tensor, reference: Tensor) -> float:
    """How far two tensors agree, -1 to 1: ``2 a.b / (a.a + b.b) = 1 - |a - b|^2 / (a.a + b.b)``.

    It is their cosine where they are equally long, and less where they are not; 0 where it is
    undefined.
    """
    a, b = candidate.double().flatten(), reference.double().flatten()
    share = float(2 * torch.dot(a, b) / (torch.dot(a, a) + torch.dot(b, b)))
    return share if share == share else 0.0


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


class _Tf32:
    """Whether CUDA may round the factors of float32 products to TF32: flags of the process.

    A block that wants it otherwise than one of another thread waits for that one to end. Inside of
    a block of the same thread, the outer block decides.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._thread = threading.local()
        self._allowed, self._blocks = False, 0
        self._before: list[tuple[Any, str, Any]] = []

    @contextmanager
    def set_to(self, allowed: bool) -> Iterator[None]:
        """Inside, products are in TF32 or in float32; afterwards the flags are as before."""
        if getattr(self._thread, "inside", False):
            yield
            return
        with self._changed:
            self._changed.wait_for(lambda: not self._blocks or self._allowed is allowed)
            if not self._blocks:
                self._set(allowed)
            self._blocks += 1
        self._thread.inside = True
        try:
            yield
        finally:
            self._thread.inside = False
            with self._changed:
                self._blocks -= 1
                if not self._blocks:
                    self._restore()
                    self._changed.notify_all()

    def _set(self, allowed: bool) -> None:
        self._allowed = allowed
        cuda: Any = torch.backends.cuda.matmul
        cudnn: Any = torch.backends.cudnn
        places = [(cuda, "allow_tf32"), (cudnn, "allow_tf32")]
        # From torch 2.9 on there are newer flags beside these, which setting the older ones sets.
        newer = [(each, "fp32_precision") for each in (cuda, getattr(cudnn, "conv", None))]
        newer.append((getattr(cudnn, "rnn", None), "fp32_precision"))
        self._before = []
        for owner, flag in (*places, *(place for place in newer if hasattr(*place))):
            with suppress(RuntimeError):  # of an older flag that the newer ones contradict
                self._before.append((owner, flag, getattr(owner, flag)))
        for owner, flag in places:
            setattr(owner, flag, allowed)

    def _restore(self) -> None:
        for owner, flag, value in self._before:
            setattr(owner, flag, value)


TF32 = _Tf32()
"""The flags of this process."""
