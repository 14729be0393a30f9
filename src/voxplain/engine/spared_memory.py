"""What is done with what autograd saves, where that of a single image does not fit into memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

_WORTH_MOVING = 16 * 2**10
"""Bytes from which on a saved tensor is moved to the CPU."""


class Recomputing(Protocol):
    """Parts of a network that can be computed again in the backward pass."""

    @property
    def refusal(self) -> str | None:
        """Why nothing can be computed again; None where it can."""

    @property
    def bytes_saved(self) -> int:
        """Bytes that autograd saves for one call, without recomputation."""

    @property
    def bytes_held(self) -> int:
        """Bytes that one backward pass holds at most, with recomputation."""

    def block(self) -> contextlib.AbstractContextManager[None]:
        """A block whose passes compute parts again."""


@dataclass
class SparedMemory:
    """The steps that are taken for a single item: first it is computed again, then moved away.

    Attributes:
        device: Where the network runs.
        limit: Bytes that one item may take.
        may_offload: Whether what is saved may be kept in the memory of the CPU.
        offloads: Whether it is kept there.
        recomputing: Parts of the network that may be computed again; None for none.
        recomputes: Whether they are.
        acts: Whether any step is taken.
    """

    device: torch.device
    limit: int
    may_offload: bool
    offloads: bool
    recomputing: Recomputing | None = None
    recomputes: bool = False
    acts: bool = False

    def reserve(self, needed: int) -> None:
        """Takes the steps that are needed for an item of so many bytes."""
        if needed > self.limit and self.recompute() and self.recomputing is not None:
            needed = self.recomputing.bytes_held
        if needed > self.limit:
            self._offload()

    def more(self) -> bool:
        """Takes the next step, after memory ran out; False if none is left."""
        return self.recompute() or self._offload()

    def recompute(self) -> bool:
        """Computes parts again from now on; False where that is impossible or done already."""
        if self.recomputes or self.recomputing is None or self.recomputing.refusal is not None:
            return False
        self.recomputes = self.acts = True
        return True

    def _offload(self) -> bool:
        if self.offloads or not self.may_offload:
            return False
        self.offloads = self.acts = True
        return True

    @contextlib.contextmanager
    def block(self) -> Iterator[None]:
        """A block whose passes take less memory."""
        nothing = contextlib.nullcontext()
        recomputing = self.recomputing if self.recomputes else None
        with (
            recomputing.block() if recomputing else nothing,
            saved_on_cpu(self.device) if self.offloads else nothing,
        ):
            yield


@contextlib.contextmanager
def saved_on_cpu(device: torch.device) -> Iterator[None]:
    """A block in which what autograd saves lies in the memory of the CPU until it is needed.

    Nothing is rounded, and tensors keep their strides, so that gradients are the same. Parameters
    and small tensors stay where they are.

    Args:
        device: Where it is brought back to; page-locked memory is used for CUDA.
    """
    pinned = device.type == "cuda"

    def pack(tensor: Tensor) -> tuple[Tensor, int | None]:
        with torch._C.DisableTorchFunction(), torch.no_grad():  # no function of the network
            owner = tensor if tensor._base is None else tensor._base
            is_large = tensor.numel() * tensor.element_size() >= _WORTH_MOVING
            if isinstance(owner, nn.Parameter) or tensor.device != device or not is_large:
                return tensor, tensor._version
            moved = torch.empty_like(tensor, device="cpu", pin_memory=pinned)
            return moved.copy_(tensor), None

    def unpack(saved: tuple[Tensor, int | None]) -> Tensor:
        tensor, version = saved
        if version is not None:
            return unpack_unchanged((tensor, version))
        with torch._C.DisableTorchFunction(), torch.no_grad():
            return tensor.to(device)

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield


def unpack_unchanged(saved: tuple[Tensor, int]) -> Tensor:
    """A saved tensor; hooks take over the check for in-place changes that autograd does itself."""
    tensor, version = saved
    if tensor._version != version:
        raise RuntimeError(
            "one of the variables needed for gradient computation has been modified by an "
            f"inplace operation: shape {tuple(tensor.shape)}"
        )
    return tensor
