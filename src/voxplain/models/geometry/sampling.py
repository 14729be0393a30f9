"""Layouts of operators on neighborhoods: convolution, pooling, interpolation, padding."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from fractions import Fraction

from voxplain.models.geometry.call import TracedCall
from voxplain.models.geometry.layout import CellLayout, channels


def convolution(call: TracedCall) -> CellLayout | None:
    """``conv1d`` to ``conv3d`` and their transposes, with any stride, dilation and padding."""
    layout, rank = call.layout("input"), call["input"].ndim - 2
    stride, padding = call.per_axis("stride", rank), call.per_axis("padding", rank)
    dilation, kernel = call.per_axis("dilation", rank), call["weight"].shape[2:]
    for axis in range(rank):
        if layout is None:
            return None
        extent = dilation[axis] * (kernel[axis] - 1)
        offset, step = extent / 2 - padding[axis], float(stride[axis])
        if call["transposed"]:
            # The relation of a convolution between output and input, inverted.
            offset, step = -offset / step, 1 / step
            extent *= step
        layout = layout.resample(2 + axis, offset, step, call.shape[2 + axis], extent)
    return layout and mix_channels(layout, call.shape[1])


def mix_channels(layout: CellLayout, size: int, index: int = 1) -> CellLayout:
    """The layout after a linear map over one dimension."""
    return layout.collapse([index], keep=True).with_dimension(index, channels(size))


def pooling(call: TracedCall) -> CellLayout | None:
    """``max_pool`` and ``avg_pool`` of any rank."""
    layout, rank = call.layout(), len(call["kernel_size"])
    kernel = call.per_axis("kernel_size", rank)
    stride = call.per_axis("stride", rank) if call["stride"] else kernel
    padding = call.per_axis("padding", rank)
    dilation = call.per_axis("dilation", rank) if "dilation" in call.arguments else [1] * rank
    first = call["self"].ndim - rank
    for axis in range(rank):
        if layout is None:
            return None
        extent = dilation[axis] * (kernel[axis] - 1)
        offset, size = extent / 2 - padding[axis], call.shape[first + axis]
        layout = layout.resample(first + axis, offset, stride[axis], size, extent)
    return layout


def adaptive_pooling(call: TracedCall) -> CellLayout | None:
    """Adaptive pooling; exact if the output size divides the input size."""
    layout, rank = call.layout(), len(call["output_size"])
    for index in range(call["self"].ndim - rank, call["self"].ndim):
        if layout is None:
            return None
        before, after = call["self"].shape[index], call.shape[index]
        step = before / after
        exact = before % after == 0
        layout = layout.resample(index, (step - 1) / 2, step, after, math.ceil(step) - 1)
        layout = layout and (layout if exact else _assumed(layout))
    return layout


def interpolation(call: TracedCall, name: str) -> CellLayout | None:
    """``F.interpolate``: linear, cubic and nearest, with both conventions of corners."""
    layout, rank = call.layout(), call["self"].ndim - 2
    for axis in range(rank):
        if layout is None:
            return None
        before, after = call["self"].shape[2 + axis], call.shape[2 + axis]
        scale = _scale(call, axis, rank)
        offset, step = _source_index(
            name, before, after, scale, bool(call.arguments.get("align_corners"))
        )
        nearest = "nearest" in name
        extent = 0.0 if nearest else max(1.0, step if "_aa" in name else 1.0)
        layout = layout.resample(2 + axis, offset, step, after, extent)
    return layout


def padding(call: TracedCall) -> CellLayout | None:
    """``F.pad`` in every mode; negative padding crops."""
    layout = call.layout()
    pad = call["pad"] if "pad" in call.arguments else call["padding"]
    for axis, before in enumerate(pad[::2]):
        if layout is None:
            return None
        index = call["self"].ndim - 1 - axis
        if before or pad[2 * axis + 1]:
            layout = layout.resample(index, -before, 1, call.shape[index])
    return layout


def unfold(call: TracedCall) -> CellLayout | None:
    """``Tensor.unfold``: windows of a dimension, with their content in a new last dimension."""
    index, size, step = call.dim("dimension"), int(call["size"]), int(call["step"])
    layout = call.layout()
    single = layout and layout.with_single_atom(index)
    if not single:
        return None
    inner = single.resample(index, 0, 1, size)
    outer = single.resample(index, 0, step, call.shape[index])
    if not (inner and outer):
        return None
    return outer.insert(len(outer.dims)).with_dimension(len(outer.dims), inner.dims[index])


def pixel_shuffle(call: TracedCall) -> CellLayout | None:
    """``F.pixel_shuffle``: channels become positions inside a cell."""
    factor = call["upscale_factor"]
    batch, channel, height, width = call["self"].shape
    split = (batch, channel // factor**2, factor, factor, height, width)
    return _rearrange(call, split, (0, 1, 4, 2, 5, 3))


def pixel_unshuffle(call: TracedCall) -> CellLayout | None:
    """``F.pixel_unshuffle``: positions inside a cell become channels."""
    factor = call["downscale_factor"]
    batch, channel, height, width = call["self"].shape
    split = (batch, channel, height // factor, factor, width // factor, factor)
    return _rearrange(call, split, (0, 1, 3, 5, 2, 4))


def _rearrange(
    call: TracedCall, split: tuple[int, ...], order: tuple[int, ...]
) -> CellLayout | None:
    layout = call.layout()
    parts = layout and layout.reshape(split)
    return parts.permute(order).reshape(call.shape) if parts else None


def _assumed(layout: CellLayout) -> CellLayout:
    return replace(layout, exact=False)


def _scale(call: TracedCall, axis: int, rank: int) -> float | None:
    """The scale factor of an interpolation; None if it follows from the sizes."""
    name = "scales" if rank == 1 else "scales_" + "dhw"[3 - rank + axis]
    value = call.arguments.get(name)
    return float(value) if value else None


def _source_index(
    name: str, before: int, after: int, scale: float | None, corners: bool
) -> tuple[float, float]:
    """The old cell at the new cell 0, and old cells per new cell."""
    step = Fraction(before, after)
    if scale:
        step = Fraction(1 / scale).limit_denominator(4096)
    if corners:
        return 0.0, (before - 1) / (after - 1) if after > 1 else 1.0
    if "nearest" not in name:
        return float(step - 1) / 2, float(step)
    # Nearest cells are a line rounded down, whose mean shift over one period is exact.
    shift = Fraction(1, 2) if re.search("nearest_exact", name) else Fraction(0)
    period = range(step.denominator)
    mean = sum((math.floor((o + shift) * step) - o * step for o in period), Fraction(0))
    return float(mean / step.denominator), float(step)
