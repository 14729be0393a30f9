"""Quicker gradients of convolutions that read few channels, as the first one of a network does.

On a CPU, vectors are filled with channels. Where a convolution reads a single one, as of a CT, the
gradient for what it reads takes up to thirty times as long as the convolution itself, and may be
half of a whole backward pass. Here blocks of neighboring voxels take the place of channels: the
gradient for a block is an ordinary convolution of what arrives, with as many channels as a block
has voxels. The sums are the same, up to rounding.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

_CHANNELS = 16
"""With so many channels vectors are full."""
_MOST_CHANNELS = 32
"""Times the voxels of a step; beyond, the ordinary way is as quick."""
_MOST_SMALL = 20480
"""Numbers that a convolution reads; so few may be convolved without oneDNN, quickly."""
_BACKWARD = torch.ops.aten.convolution_backward.default


def quick_gradients(values: Iterable[Tensor]) -> contextlib.AbstractContextManager[Any]:
    """A context in which to take gradients with respect to some values."""
    if not any(map(_is_large, values)):
        return contextlib.nullcontext()
    return _FewChannels()  # type: ignore[no-untyped-call]


class _FewChannels(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Replaces the backward of convolutions that read few channels."""

    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Telling the compiler to skip this mode would import it, which takes seconds."""
        return False

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is _BACKWARD:
            arriving, read, weight, _, stride, padding, dilation, transposed, _, groups, mask = args
            ordinary = not transposed and groups == 1 and set(dilation) == {1}
            thin = _is_large(read) and _is_slow(weight, stride) and not _is_alone(arriving)
            if ordinary and thin and mask == [True, False, False]:
                return input_gradient(arriving, read.shape, weight, stride, padding), None, None
        return func(*args, **(kwargs or {}))


def _is_large(value: Tensor) -> bool:
    """Whether it pays; only float32 fills vectors with channels."""
    spatial = value.ndim > 3 and value.dtype is torch.float32
    return spatial and value.device.type == "cpu" and value.numel() > _MOST_SMALL


def _is_alone(value: Tensor) -> bool:
    """Whether torch may convolve it without oneDNN; it does not count the last axis."""
    return len(value) == 1 and math.prod(value.shape[:4]) <= _MOST_SMALL


def _is_slow(weight: Tensor, stride: Sequence[int]) -> bool:
    """Whether vectors are not full, and would be."""
    channels, kernel = weight.shape[1], math.prod(weight.shape[2:])
    return channels < _CHANNELS and channels * math.prod(stride) <= _MOST_CHANNELS and kernel > 1


def input_gradient(
    arriving: Tensor,
    shape: Sequence[int],
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
) -> Tensor:
    """The gradient of a convolution with respect to what it reads.

    Args:
        arriving: The gradient of what it gives, ``(B, K, *cells)``.
        shape: Of what it reads, ``(B, C, *spatial)``.
        weight: ``(K, C, *kernel)``.
        stride: Per axis.
        padding: Zeros on both sides, per axis.
    """
    axes = [
        _KernelAxis(*sides)
        for sides in zip(
            shape[2:],
            arriving.shape[2:],
            weight.shape[2:],
            stride,
            padding,
            _blocks(shape[1], stride),
            strict=True,
        )
    ]
    both = [axis.around for axis in axes]
    shared = [max(0, min(sides)) for sides in both]
    rest = [side - inner for sides, inner in zip(both, shared, strict=True) for side in sides]
    if any(rest):
        pairs = [rest[first : first + 2] for first in range(0, len(rest), 2)]
        arriving = functional.pad(arriving, list(itertools.chain(*reversed(pairs))))
    ones, zeros = [1] * len(axes), [0] * len(axes)
    found = torch.convolution(
        arriving,
        _arranged(weight, axes),
        None,
        [axis.block // axis.stride for axis in axes],
        shared,
        ones,
        False,
        zeros,
        1,
    )
    return _spread(found, shape, axes)


@dataclass(frozen=True)
class _KernelAxis:
    """One axis of a convolution, read backwards.

    Voxel ``block * q + phase`` is read with element ``phase + padding - stride * t`` of the kernel
    by cell ``block / stride * q + t``, whatever q.

    Attributes:
        side: Voxels that are read.
        cells: That are given.
        kernel: Its length.
        stride: Voxels between cells.
        padding: Zeros on both sides.
        block: Voxels that are found at once, a multiple of the stride.
    """

    side: int
    cells: int
    kernel: int
    stride: int
    padding: int
    block: int

    @property
    def first(self) -> int:
        """The first t."""
        return -((self.kernel - 1 - self.padding) // self.stride)

    @property
    def last(self) -> int:
        """The last t."""
        return (self.block - 1 + self.padding) // self.stride

    @property
    def blocks(self) -> int:
        """How many, the last one perhaps in part."""
        return -(-self.side // self.block)

    @property
    def around(self) -> tuple[int, int]:
        """Zeros before and after the cells; below 0, cells that no voxel is read by."""
        stop = self.block // self.stride * (self.blocks - 1) + self.last + 1
        return -self.first, stop - self.cells

    @property
    def elements(self) -> Tensor:
        """The element of the kernel for each phase and t; its length where there is none."""
        phases, cells = torch.arange(self.block), torch.arange(self.first, self.last + 1)
        found = phases[:, None] + self.padding - self.stride * cells
        return torch.where((found >= 0) & (found < self.kernel), found, self.kernel)


def _blocks(channels: int, stride: Sequence[int]) -> list[int]:
    """The stride, doubled along one axis after the other as long as vectors are not full."""
    blocks = list(stride)
    for axis in itertools.cycle(reversed(range(len(blocks)))):
        if 2 * channels * math.prod(blocks) > _CHANNELS:
            return blocks
        blocks[axis] *= 2
    return blocks


def _arranged(weight: Tensor, axes: Sequence[_KernelAxis]) -> Tensor:
    """The kernel of the gradient, ``(C * phases, K, *cells)``."""
    weight = functional.pad(weight, [0, 1] * len(axes))
    for number, axis in enumerate(axes):
        place, elements = 2 + 2 * number, axis.elements
        before, after = weight.shape[:place], weight.shape[place + 1 :]
        weight = weight.index_select(place, elements.flatten())
        weight = weight.view(*before, *elements.shape, *after)
    phases, cells = range(2, weight.ndim, 2), range(3, weight.ndim, 2)
    kernel = weight.permute(1, *phases, 0, *cells)
    return kernel.flatten(0, len(axes)).contiguous()


def _spread(found: Tensor, shape: Sequence[int], axes: Sequence[_KernelAxis]) -> Tensor:
    """Phases as neighbors, ``(B, C, *spatial)``."""
    rank, phases = len(axes), (axis.block for axis in axes)
    parts = found.reshape(len(found), shape[1], *phases, *found.shape[2:])
    neighbors = [(2 + rank + number, 2 + number) for number in range(rank)]
    whole = parts.permute(0, 1, *itertools.chain(*neighbors))
    for number in range(rank):
        whole = whole.flatten(2 + number, 3 + number).narrow(2 + number, 0, shape[2 + number])
    return whole.contiguous()
