"""How much goes through the network at once, by the memory that is free."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_CPU_BUDGET = 512 * 2**20
_GPU_SHARE = 0.6
_FIRST_BATCH, _FIRST_POINTS, _SMALL_POINT = 512 * 2**10, 8, 2 * 2**20
_VOLUME, _SMALL_VOLUME = 5, 50**3
_CPU_COMFORT = 32 * 2**20
"""Beyond this a CPU pass gets slower per point, up to 1.5 times: tensors leave the caches."""
_LARGEST_BLOCK = 31 * 2**20


class BackwardBudget:
    """The batch size of one stream.

    The first batch has one point, two to eight where they are small, and what autograd saves for
    it is counted; later batches take as many points as fit. On a CPU large batches are slower, so
    only 32 MiB are filled there, or more with two points: see :func:`lone_volume_is_slow`.

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
        on_cpu = device.type == "cpu"
        keep_allocator_pages()
        self._comfort = _CPU_COMFORT if on_cpu else self._limit
        small = limit is None and point is not None and 0 < point <= _SMALL_POINT
        self.size = min(_FIRST_POINTS, max(2, _FIRST_BATCH // (point or 1))) if small else 1
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
        comfortable = max(2, self._comfort // self.bytes_per_point)
        self.size = max(1, min(self._limit // self.bytes_per_point, comfortable))

    def halve(self) -> bool:
        """Makes batches smaller after memory ran out; False if they are single points already."""
        if self.size <= 1:
            return False
        self.size //= 2
        return True


@functools.cache
def keep_allocator_pages() -> None:
    """Lets the C allocator keep the memory of one pass for the next.

    glibc gives back what is free beyond twice the largest block that was ever freed, and gets it
    again page by page, which can be a third of a pass. Of blocks below 32 MiB it takes note, so
    one is freed here, without being touched: it never takes any memory.
    """
    torch.empty(_LARGEST_BLOCK, dtype=torch.uint8, device="cpu")


def lone_volume_is_slow(points: Tensor) -> bool:
    """Whether a point takes longer alone than twice at once: small float32 volumes on a CPU.

    torch convolves ``B * C * D * H <= 20480`` cells of a lone volume without oneDNN, which takes
    four times as long as with it; from two volumes on it always uses oneDNN.

    Args:
        points: ``(k, C, *spatial)``.
    """
    lone = len(points) == 1 and points.ndim == _VOLUME
    small = points[0, 0].numel() <= _SMALL_VOLUME if lone else False
    return small and points.device.type == "cpu" and points.dtype is torch.float32


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


_CPU_FORWARD_BYTES = 1024 * 2**20
_GPU_FORWARD_SHARE = 0.5
_COMFORT = 8 * 2**20
"""On a CPU larger activations than this leave the caches, and each image gets slower."""
_LIVE = 4
"""Activations of the largest size that are alive at once, input and output of a block and skips."""
_MOST = 256


class ForwardBudget:
    """The batch size of forwards without gradient, from the largest activation of the first one.

    Args:
        device: Where the network runs.
        limit: Bytes for activations; None for a default of the device.
    """

    def __init__(self, device: torch.device, limit: int | None = None) -> None:
        keep_allocator_pages()
        self._limit = limit if limit is not None else _forward_bytes(device)
        self._comfort = _COMFORT if device.type == "cpu" else self._limit
        self._known = False
        self.size = 2

    @contextlib.contextmanager
    def measured(self, images: int) -> Iterator[None]:
        """Watches the forward inside, the first time."""
        if self._known:
            yield
            return
        with _Largest() as seen:
            yield
        each = max(1, seen.nbytes // images)
        fitting = min(self._limit // (_LIVE * each), max(2, self._comfort // each))
        self.size, self._known = max(1, min(_MOST, fitting)), True

    def halve(self) -> bool:
        """Makes batches smaller after memory ran out; False if they are single images already."""
        if self.size <= 1:
            return False
        self.size //= 2
        return True


class _Largest(TorchFunctionMode):
    """The largest tensor that any function gives."""

    nbytes = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.nbytes = max(self.nbytes, result.numel() * result.element_size())
        return result


def _forward_bytes(device: torch.device) -> int:
    if device.type != "cuda":
        return _CPU_FORWARD_BYTES
    free, _ = torch.cuda.mem_get_info(device)
    return int(free * _GPU_FORWARD_SHARE)


_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the machine or the accelerator had too little memory."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in _OUT_OF_MEMORY)
