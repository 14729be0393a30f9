"""How much goes through the network at once: by free memory, halved when it runs out."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from voxplain.engine.spared_memory import Recomputing, SparedMemory, unpack_unchanged
from voxplain.errors import VoxplainError, is_out_of_memory
from voxplain.models.model import Offload

_BACKWARD_BYTES, _BACKWARD_SHARE = 512 * 2**20, 0.6
_FORWARD_BYTES, _FORWARD_SHARE = 1024 * 2**20, 0.5
"""Bytes on a CPU, and the share of the free memory of a GPU."""
_FIRST_BATCH, _FIRST_POINTS, _SMALL_POINT = 512 * 2**10, 8, 2 * 2**20
_BACKWARD_CACHE = 32 * 2**20
"""Beyond this a CPU pass gets slower per point, up to 1.5 times: tensors leave the caches."""
_FORWARD_CACHE = 8 * 2**20
"""On a CPU larger activations than this leave the caches, and each image gets slower."""
_LIVE = 4
"""Activations of the largest size that are alive at once, input and output of a block and skips."""
_MOST = 256
_LARGEST_BLOCK = 31 * 2**20
_CPU = torch.device("cpu")
_LARGEST_RATIO = 1000
"""Bytes that networks save for a byte of the image: a U-Net of 32 channels saves about 400."""
_CPU_SHARE = 0.8
"""Share of the free memory of a computer that one point may take."""


class BatchBudget:
    """How many points or images go through the network at once; by itself, a fixed number.

    Args:
        size: The number of the first batch.
        device: Where the network runs.
        offload: What may be done with what autograd saves for single items.
        limit: Bytes that it may take for one; None for a default of the device.

    Attributes:
        spared: What is done with it.
    """

    def __init__(
        self,
        size: int = 1,
        device: torch.device = _CPU,
        offload: Offload = "never",
        limit: int | None = None,
    ) -> None:
        always, most = offload == "always", _most_for_one(device, limit)
        may_offload = always or (offload == "auto" and device.type == "cuda")
        self.spared = SparedMemory(device, most, may_offload, offloads=always, acts=always)
        self.size, self._offload = 1 if always else size, offload

    def allow(self, recomputing: Recomputing, image: int) -> str | None:
        """Parts of the network may be computed again, from the first pass on where that is asked.

        On a CPU, where a process that takes too much is killed without a warning, they are so from
        the first pass on as well if that would take more than there is.

        Args:
            recomputing: The parts.
            image: Bytes of the image.

        Returns:
            Why nothing is computed again, where it is asked.
        """
        spared, reason = self.spared, None
        if self._offload in ("auto", "recompute"):
            spared.recomputing = recomputing
        if self._offload == "recompute" and not spared.recompute():
            reason = recomputing.refusal
        may_not_fit = spared.device.type == "cpu" and image * _LARGEST_RATIO > spared.limit
        if self._offload == "auto" and may_not_fit and recomputing.refusal is None:
            spared.reserve(recomputing.bytes_saved)
        self.size = 1 if spared.acts else self.size
        return reason

    def next(self, waiting: int) -> int:
        """The size of the next batch, when so many items are waiting."""
        return min(self.size, waiting)

    @contextlib.contextmanager
    def measured(self, count: int) -> Iterator[None]:
        """Measures the memory that the passes inside take for ``count`` items, the first time."""
        yield

    def saving(self, count: int) -> contextlib.AbstractContextManager[None]:
        """A block whose passes are measured, or spare memory where they are to."""
        return self.spared.block() if self.spared.acts else self.measured(count)

    def halve(self) -> bool:
        """Takes less memory after it ran out; False if nothing is left to do.

        Batches get smaller. Where they hold single items, what these save is computed again, and
        then kept on the CPU, if it may be.
        """
        if self.size > 1:
            self.size //= 2
            return True
        return self.spared.more()


class BackwardBudget(BatchBudget):
    """The batch size of one gradient stream.

    The first batch has one point, two to eight where they are small, and what autograd saves for
    it is counted; later batches take as many points as fit. On a CPU large batches are slower, so
    only 32 MiB are filled there, or more with two points, since a lone small volume is slow.

    Args:
        device: Where the network runs.
        limit: Bytes for saved activations; None for 512 MiB on a CPU, 60 % of the free memory
            of a GPU.
        point: Bytes of one point, where it is known.
        offload: What may be done with what autograd saves for a point that takes more.
    """

    def __init__(
        self,
        device: torch.device,
        limit: int | None = None,
        point: int | None = None,
        offload: Offload = "never",
    ) -> None:
        keep_allocator_pages()
        small = limit is None and point is not None and 0 < point <= _SMALL_POINT
        first = min(_FIRST_POINTS, max(2, _FIRST_BATCH // (point or 1))) if small else 1
        super().__init__(max(1, first // _DIVISOR.get()), device, offload, limit)
        self._limit = _limit(device, limit, _BACKWARD_BYTES, _BACKWARD_SHARE)
        self._cache = _BACKWARD_CACHE // _DIVISOR.get() if device.type == "cpu" else self._limit
        self.bytes_per_point: int | None = None

    @contextlib.contextmanager
    def measured(self, count: int) -> Iterator[None]:
        """Counts what the forwards inside save beside parameters, the first time."""
        if self.bytes_per_point is not None:
            yield
            return
        saved: dict[int, int] = {}

        def pack(tensor: Tensor) -> tuple[Tensor, int]:
            if not isinstance(tensor if tensor._base is None else tensor._base, nn.Parameter):
                storage = tensor.untyped_storage()
                saved[storage.data_ptr()] = storage.nbytes()
            return tensor, tensor._version

        with torch.autograd.graph.saved_tensors_hooks(pack, unpack_unchanged):
            yield
        self.bytes_per_point = max(1, sum(saved.values()) // count)
        cached = max(2 // _DIVISOR.get(), self._cache // self.bytes_per_point)
        self.size = max(1, min(self._limit // self.bytes_per_point, cached))
        self.spared.reserve(self.bytes_per_point)
        self.size = 1 if self.spared.acts else self.size


class ForwardBudget(BatchBudget):
    """The batch size of forwards without gradient, from the largest activation of the first one.

    Args:
        device: Where the network runs.
        limit: Bytes for activations; None for 1 GiB on a CPU, half the free memory of a GPU.
    """

    def __init__(self, device: torch.device, limit: int | None = None) -> None:
        keep_allocator_pages()
        super().__init__(max(1, 2 // _DIVISOR.get()))
        self._limit = _limit(device, limit, _FORWARD_BYTES, _FORWARD_SHARE)
        self._cache = _FORWARD_CACHE // _DIVISOR.get() if device.type == "cpu" else self._limit
        self._is_measured = False

    @contextlib.contextmanager
    def measured(self, count: int) -> Iterator[None]:
        """Watches the largest activation of the forward inside, the first time."""
        if self._is_measured:
            yield
            return
        with _LargestTensor() as largest:
            yield
        per_image = max(1, largest.nbytes // count)
        fitting = min(
            self._limit // (_LIVE * per_image), max(2 // _DIVISOR.get(), self._cache // per_image)
        )
        self.size, self._is_measured = max(1, min(_MOST, fitting)), True


def in_batches(count: int, budget: BatchBudget, run: Callable[[range], None]) -> None:
    """Runs numbered items in batches of the budget's size; where memory runs out, in smaller ones.

    Args:
        count: How many items there are.
        budget: How many go at once.
        run: Called with consecutive numbers; again with fewer of them after it ran out of memory.

    Raises:
        RuntimeError: What ``run`` raises, out of memory only if a single item does not fit.
    """
    done = 0
    while done < count:
        batch = range(done, done + budget.next(count - done))
        try:
            run(batch)
        except (RuntimeError, MemoryError) as error:
            own = isinstance(error, VoxplainError)
            if own or not is_out_of_memory(error) or not budget.halve():
                raise
            continue
        done += len(batch)


@functools.cache
def keep_allocator_pages() -> None:
    """Lets the C allocator keep the memory of one pass for the next.

    glibc gives back what is free beyond twice the largest block that was ever freed, and gets it
    again page by page, which can be a third of a pass. Of blocks below 32 MiB it takes note, so
    one is freed here, without being touched: it never takes any memory.
    """
    torch.empty(_LARGEST_BLOCK, dtype=torch.uint8, device="cpu")


class _LargestTensor(TorchFunctionMode):
    """The largest tensor that any function returns."""

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


_DIVISOR: ContextVar[int] = ContextVar("divisor", default=1)


@contextlib.contextmanager
def smaller_batches(divisor: int) -> Iterator[None]:
    """A block in which batches are so many times smaller, for a machine that ran out of memory."""
    token = _DIVISOR.set(divisor)
    try:
        yield
    finally:
        _DIVISOR.reset(token)


def _limit(device: torch.device, limit: int | None, cpu_bytes: int, gpu_share: float) -> int:
    """The bytes that are allowed, or a default of the device."""
    divisor = _DIVISOR.get()
    if limit is not None:
        return limit // divisor
    if device.type != "cuda":
        return cpu_bytes // divisor
    free, _ = torch.cuda.mem_get_info(device)
    return int(free * gpu_share) // divisor


def _most_for_one(device: torch.device, limit: int | None) -> int:
    """The bytes that one point may take.

    On a CPU that is most of the free memory; where a process was killed for want of memory, no more
    than what batches would take.
    """
    if limit is None and device.type != "cuda" and _DIVISOR.get() == 1:
        return int(psutil.virtual_memory().available * _CPU_SHARE)
    return _limit(device, limit, _BACKWARD_BYTES, _BACKWARD_SHARE)
