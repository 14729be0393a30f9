"""What is done with what autograd saves, where that of a single image does not fit into memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor, nn

from voxplain.models.model import Offload

_WORTH_MOVING = 16 * 2**10
"""Bytes from which on a saved tensor is moved to the CPU."""
_LARGEST_RATIO = 1000
"""Bytes that networks save for a byte of the image: a U-Net of 32 channels saves about 400."""


class Recomputing(Protocol):
    """Parts of a network that can be computed again in the backward pass."""

    @property
    def example(self) -> Tensor:
        """What one call of the network sees."""

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


class SparedMemory:
    """The steps that are taken for a single item: first it is computed again, then moved away.

    Args:
        device: Where the network runs.
        offload: Which steps may be taken.
        limit: Bytes that one item may take.

    Attributes:
        recomputes: Whether parts of the network are computed again.
        offloads: Whether what is saved is kept in the memory of the CPU.
        may_offload: Whether it may be.
    """

    def __init__(self, device: torch.device, offload: Offload, limit: int) -> None:
        self._device, self._offload, self._limit = device, offload, limit
        self._recomputing: Recomputing | None = None
        self.recomputes, self.offloads = False, offload == "always"
        self.may_offload = self.offloads or (offload == "auto" and device.type == "cuda")

    @property
    def acts(self) -> bool:
        """Whether any step is taken."""
        return self.recomputes or self.offloads

    def allow(self, recomputing: Recomputing) -> str | None:
        """Parts of the network may be computed again, from the first pass on where that is asked.

        On a CPU, where a process that takes too much is killed without a warning, they are so from
        the first pass on as well if that would take more than there is.

        Returns:
            Why nothing is computed again, where it is asked.
        """
        if self._offload not in ("auto", "recompute"):
            return None
        self._recomputing = recomputing
        if self._offload == "recompute":
            self._recompute()
            return recomputing.refusal
        may_not_fit = recomputing.example.nbytes * _LARGEST_RATIO > self._limit
        if self._device.type == "cpu" and may_not_fit and recomputing.refusal is None:
            self.reserve(recomputing.bytes_saved)
        return None

    def reserve(self, needed: int) -> None:
        """Takes the steps that are needed for an item of so many bytes."""
        if needed > self._limit and self._recompute() and self._recomputing is not None:
            needed = self._recomputing.bytes_held
        self.offloads |= self.may_offload and needed > self._limit

    def more(self) -> bool:
        """Takes the next step, after memory ran out; False if none is left."""
        if self._recompute():
            return True
        if self.offloads or not self.may_offload:
            return False
        self.offloads = True
        return True

    @contextlib.contextmanager
    def block(self) -> Iterator[None]:
        """A block whose passes take less memory."""
        nothing = contextlib.nullcontext()
        recomputing = self._recomputing if self.recomputes else None
        with (
            recomputing.block() if recomputing else nothing,
            saved_on_cpu(self._device) if self.offloads else nothing,
        ):
            yield

    def _recompute(self) -> bool:
        """Computes parts again from now on; False where that is impossible or done already."""
        if self.recomputes or self._recomputing is None or self._recomputing.refusal is not None:
            return False
        self.recomputes = True
        return True


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
