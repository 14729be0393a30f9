"""Faster input gradients of convolutions with few input channels, as the first one of a network.

CPU kernels vectorize over channels. For a convolution with a single input channel, as of a CT, the
gradient with respect to the input takes up to thirty times as long as the convolution itself, and
may be half of a whole backward pass. Here blocks of neighboring voxels take the place of channels:
the gradient of a block is an ordinary convolution of the output gradient, with as many output
channels as a block has voxels. The sums are the same, up to rounding.
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

_VECTOR_CHANNELS = 16
"""Number of channels from which on vectors are full."""
_MAX_BLOCK_CHANNELS = 32
"""Limit of input channels times voxels per stride; beyond it torch's own gradient is as fast."""
_SMALL_INPUT = 20480
"""Input elements up to which torch may convolve without oneDNN, which is fast."""
_BACKWARD = torch.ops.aten.convolution_backward.default


def quick_gradients(values: Iterable[Tensor]) -> contextlib.AbstractContextManager[Any]:
    """A context in which gradients with respect to the given values are taken faster."""
    if not any(map(_is_large, values)):
        return contextlib.nullcontext()
    return _FewChannels()  # type: ignore[no-untyped-call]


class _FewChannels(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Replaces the backward of convolutions with few input channels."""

    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False, as telling the compiler to skip this mode would import it, which takes seconds."""
        return False

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is _BACKWARD:
            gradient, source, weight, _, stride, padding, dilation, transposed, _, groups, mask = (
                args
            )
            supported = not transposed and groups == 1 and set(dilation) == {1}
            slow = _is_large(source) and _is_slow(weight, stride)
            needs_source_only = mask == [True, False, False]
            if supported and slow and needs_source_only and not _runs_without_onednn(gradient):
                return input_gradient(gradient, source.shape, weight, stride, padding), None, None
        return func(*args, **(kwargs or {}))


def _is_large(value: Tensor) -> bool:
    """Whether it pays: a large float32 tensor on a CPU, the type that is vectorized by channels."""
    spatial = value.ndim > 3 and value.dtype is torch.float32
    return spatial and value.device.type == "cpu" and value.numel() > _SMALL_INPUT


def _runs_without_onednn(gradient: Tensor) -> bool:
    """Whether torch may convolve it without oneDNN; its own count leaves out the last axis."""
    return len(gradient) == 1 and math.prod(gradient.shape[:4]) <= _SMALL_INPUT


def _is_slow(weight: Tensor, stride: Sequence[int]) -> bool:
    """Whether torch's vectors are not full and those of blocks would be."""
    channels, kernel = weight.shape[1], math.prod(weight.shape[2:])
    block_channels = channels * math.prod(stride)
    return channels < _VECTOR_CHANNELS and block_channels <= _MAX_BLOCK_CHANNELS and kernel > 1


def input_gradient(
    gradient: Tensor,
    shape: Sequence[int],
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
) -> Tensor:
    """The gradient of a convolution with respect to its input, ``(B, C, *spatial)``.

    Args:
        gradient: With respect to its output, ``(B, K, *cells)``.
        shape: Of the input, ``(B, C, *spatial)``.
        weight: ``(K, C, *kernel)``.
        stride: Per axis.
        padding: Zeros on both sides, per axis.
    """
    axes = [
        _KernelAxis(*sides)
        for sides in zip(
            shape[2:],
            gradient.shape[2:],
            weight.shape[2:],
            stride,
            padding,
            _block_sizes(shape[1], stride),
            strict=True,
        )
    ]
    paddings = [axis.padding_of_gradient for axis in axes]
    symmetric = [max(0, min(sides)) for sides in paddings]
    rest = [
        side - inner for sides, inner in zip(paddings, symmetric, strict=True) for side in sides
    ]
    if any(rest):
        pairs = [rest[first : first + 2] for first in range(0, len(rest), 2)]
        gradient = functional.pad(gradient, list(itertools.chain(*reversed(pairs))))
    ones, zeros = [1] * len(axes), [0] * len(axes)
    blocks = torch.convolution(
        gradient,
        _block_kernel(weight, axes),
        None,
        [axis.block // axis.stride for axis in axes],
        symmetric,
        ones,
        False,
        zeros,
        1,
    )
    return _to_voxels(blocks, shape, axes)


@dataclass(frozen=True)
class _KernelAxis:
    """One axis of the backward of a convolution.

    For every q, input voxel ``block * q + phase`` is multiplied with kernel element
    ``phase + padding - stride * t`` in output cell ``block / stride * q + t``.

    Attributes:
        voxels: Length of the input.
        cells: Length of the output.
        kernel: Length of the kernel.
        stride: Voxels between cells.
        padding: Zeros on both sides.
        block: Voxels computed at once, a multiple of the stride.
    """

    voxels: int
    cells: int
    kernel: int
    stride: int
    padding: int
    block: int

    @property
    def first(self) -> int:
        """Smallest t."""
        return -((self.kernel - 1 - self.padding) // self.stride)

    @property
    def last(self) -> int:
        """Largest t."""
        return (self.block - 1 + self.padding) // self.stride

    @property
    def blocks(self) -> int:
        """Number of blocks; the last one may reach beyond the input."""
        return -(-self.voxels // self.block)

    @property
    def padding_of_gradient(self) -> tuple[int, int]:
        """Zeros before and after the cells; below 0, unused cells to crop."""
        stop = self.block // self.stride * (self.blocks - 1) + self.last + 1
        return -self.first, stop - self.cells

    @property
    def elements(self) -> Tensor:
        """Kernel element for each phase and t, ``(phases, t)``; the kernel's length for none."""
        phases, cells = torch.arange(self.block), torch.arange(self.first, self.last + 1)
        elements = phases[:, None] + self.padding - self.stride * cells
        return torch.where((elements >= 0) & (elements < self.kernel), elements, self.kernel)


def _block_sizes(channels: int, stride: Sequence[int]) -> list[int]:
    """The stride, doubled along one axis after the other as long as vectors are not full."""
    sizes = list(stride)
    for axis in itertools.cycle(reversed(range(len(sizes)))):
        if 2 * channels * math.prod(sizes) > _VECTOR_CHANNELS:
            return sizes
        sizes[axis] *= 2
    return sizes


def _block_kernel(weight: Tensor, axes: Sequence[_KernelAxis]) -> Tensor:
    """The kernel that computes blocks from the output gradient, ``(C * phases, K, *cells)``."""
    weight = functional.pad(weight, [0, 1] * len(axes))
    for number, axis in enumerate(axes):
        dim, elements = 2 + 2 * number, axis.elements
        before, after = weight.shape[:dim], weight.shape[dim + 1 :]
        weight = weight.index_select(dim, elements.flatten())
        weight = weight.view(*before, *elements.shape, *after)
    phases, cells = range(2, weight.ndim, 2), range(3, weight.ndim, 2)
    kernel = weight.permute(1, *phases, 0, *cells)
    return kernel.flatten(0, len(axes)).contiguous()


def _to_voxels(blocks: Tensor, shape: Sequence[int], axes: Sequence[_KernelAxis]) -> Tensor:
    """The voxels of blocks at their positions, ``(B, C, *spatial)``."""
    rank, phases = len(axes), (axis.block for axis in axes)
    by_phase = blocks.reshape(len(blocks), shape[1], *phases, *blocks.shape[2:])
    block_and_phase = [(2 + rank + number, 2 + number) for number in range(rank)]
    voxels = by_phase.permute(0, 1, *itertools.chain(*block_and_phase))
    for number in range(rank):
        voxels = voxels.flatten(2 + number, 3 + number).narrow(2 + number, 0, shape[2 + number])
    return voxels.contiguous()
