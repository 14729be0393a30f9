"""How many points go through the network at once: measured, and halved when memory runs out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

_CPU_BUDGET = 512 * 2**20
_GPU_SHARE = 0.6
_SMALL_POINT = 2 * 2**20
_RECYCLED = 16 * 2**20
"""Blocks above 32 MiB the C allocator takes from the system and gives back each time, page by
page, which makes a pass about 1.5 times slower. Half of that, as convolutions pad channels."""


class Budget:
    """The batch size of one stream.

    The first batch has one point, two where they are small, and what autograd saves for it is
    counted; later batches take as many points as fit. On a CPU a pair is up to five times faster
    per point than a single small volume, for which torch's convolutions take a slow path; more
    are no faster, so the budget there is small.

    Args:
        device: Where the network runs.
        limit: Bytes for saved activations; None for 512 MiB on a CPU, 60 % of the free memory
            of a GPU.
        point: Bytes of one point, where it is known.
    """

    def __init__(
        self, device: torch.device, limit: int | None = None, point: int | None = None
    ) -> None:
        self._limit = limit if limit is not None else _available(device)
        self._largest = _RECYCLED if device.type == "cpu" else self._limit
        small = limit is None and point is not None and point <= _SMALL_POINT
        self.size = 2 if small else 1
        self.bytes_per_point: int | None = None

    @contextlib.contextmanager
    def measured(self, points: int) -> Iterator[None]:
        """Counts what the forwards inside save beside parameters, the first time."""
        if self.bytes_per_point is not None:
            yield
            return
        seen: dict[int, int] = {}

        def count(tensor: Tensor) -> tuple[Tensor, int]:
            if not isinstance(tensor if tensor._base is None else tensor._base, nn.Parameter):
                storage = tensor.untyped_storage()
                seen[storage.data_ptr()] = storage.nbytes()
            return tensor, tensor._version

        with torch.autograd.graph.saved_tensors_hooks(count, _unchanged):
            yield
        self.bytes_per_point = max(1, sum(seen.values()) // points)
        largest = max(1, max(seen.values(), default=0) // points)
        pieces = max(2, self._largest // largest)
        self.size = max(1, min(self._limit // self.bytes_per_point, pieces))

    def halve(self) -> bool:
        """Makes batches smaller after memory ran out; False if they are single points already."""
        if self.size <= 1:
            return False
        self.size //= 2
        return True


def ran_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that memory ran out, on a GPU or in the CPU allocator."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(
        phrase in text for phrase in ("out of memory", "can't allocate memory", "not enough memory")
    )


def _unchanged(saved: tuple[Tensor, int]) -> Tensor:
    """What was saved; hooks take over the check for in-place changes that autograd does itself."""
    tensor, version = saved
    if tensor._version != version:
        raise RuntimeError(
            "one of the variables needed for gradient computation has been modified by an "
            f"inplace operation: shape {tuple(tensor.shape)}"
        )
    return tensor


def _available(device: torch.device) -> int:
    if device.type != "cuda":
        return _CPU_BUDGET
    free, _ = torch.cuda.mem_get_info(device)
    return int(free * _GPU_SHARE)
