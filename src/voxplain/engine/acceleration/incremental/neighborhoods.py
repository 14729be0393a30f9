"""Operators that read neighborhoods, computed on boxes with the halo that they need."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor
from torch._ops import OpOverload

from voxplain.engine.acceleration.incremental.boxes import BoxSet, Integers, Reach, one_by_one, read
from voxplain.engine.acceleration.incremental.step import Changed, IncrementalStep, Rule
from voxplain.models.lone_volume import with_companion


def convolution(step: IncrementalStep) -> Changed | None:
    """``conv1d`` to ``conv3d`` and their transposes, any stride, dilation, padding and groups."""
    if not isinstance(step["weight"], Tensor) or isinstance(step["input"], Tensor):
        return None
    return _transposed(step) if step["transposed"] else _convolution(step)


def _convolution(step: IncrementalStep) -> Changed | None:
    value = step.value("input")
    reaches = _strided(step, _extents(step))
    boxes = step.grow(value, reaches)
    if boxes is None:
        return None
    content = value.content(read(boxes, reaches))
    return boxes, _convolved(step, content, padding=[0] * step.rank)


def _transposed(step: IncrementalStep) -> Changed | None:
    value, extents = step.value("input"), _extents(step)
    stride, padding = step.per_axis("stride"), step.per_axis("padding")
    reaches = [
        Reach.transposed(cells, -padding[axis], stride[axis], extents[axis])
        for axis, cells in enumerate(step.output.spatial)
    ]
    boxes = step.grow(value, reaches)
    if boxes is None:
        return None
    sources = read(boxes, reaches)
    if any(extent < pace for extent, pace in zip(extents, stride, strict=True)):
        # Such kernels leave gaps, which one more source cell per axis reaches over.
        sources = BoxSet(sources.starts, tuple(cells + 1 for cells in sources.size))
    changes = {"padding": [0] * step.rank, "output_padding": [0] * step.rank}
    spread = _convolved(step, value.content(sources), **changes)
    offsets = boxes.starts - (sources.starts * np.asarray(stride) - np.asarray(padding))
    inner = BoxSet(offsets, boxes.size)
    return boxes, torch.stack([spread[place] for place in inner.places()])


def _convolved(step: IncrementalStep, content: Tensor, **changes: Any) -> Tensor:
    """A lone small volume is shown twice, which torch convolves faster than once."""
    result: Tensor = step.run(input=with_companion(content), **changes)
    return result[: len(content)]


def _extents(step: IncrementalStep) -> list[int]:
    kernel, dilation = step["weight"].shape[2:], step.per_axis("dilation")
    return [per * (cells - 1) + 1 for cells, per in zip(kernel, dilation, strict=True)]


def _strided(step: IncrementalStep, extents: Sequence[int]) -> list[Reach]:
    stride, padding = step.per_axis("stride"), step.per_axis("padding")
    return [
        Reach.strided(cells, -padding[axis], stride[axis], extents[axis])
        for axis, cells in enumerate(step.output.spatial)
    ]


def max_pool(step: IncrementalStep) -> Changed | None:
    """Max-pooling in any rank, with padding, dilation and rounding up."""
    value = step.value()
    step = _with_stride(step)
    kernel, dilation = step.per_axis("kernel_size"), step.per_axis("dilation")
    extents = [per * (cells - 1) + 1 for cells, per in zip(kernel, dilation, strict=True)]
    reaches = _strided(step, extents)
    boxes = step.grow(value, reaches)
    if boxes is None or not value.base.dtype.is_floating_point:
        return None
    content = value.content(read(boxes, reaches), fill=-math.inf)
    pooled = step.run(self=content, padding=[0] * step.rank, ceil_mode=False)
    return boxes, pooled[0] if isinstance(pooled, tuple) else pooled


def average_pool(step: IncrementalStep) -> Changed | None:
    """Average pooling in any rank; at the border the divisor is what torch counts there."""
    value = step.value()
    step = _with_stride(step)
    reaches = _strided(step, step.per_axis("kernel_size"))
    boxes = step.grow(value, reaches)
    if boxes is None or step.arguments.get("divisor_override"):
        return None
    sources = read(boxes, reaches)
    changes = {"padding": [0] * step.rank, "ceil_mode": False}
    pooled = step.run(self=value.content(sources), **changes)
    if sources.inside(value.base.spatial):
        return boxes, pooled
    counted = _counted(step, sources, value.base.spatial).to(pooled)
    return boxes, pooled / step.run(self=counted, **changes)


def _counted(step: IncrementalStep, sources: BoxSet, shape: Sequence[int]) -> Tensor:
    """1 where a cell counts for the divisor, else 0, ``(k, 1, *size)``."""
    padding = step.per_axis("padding") if step["count_include_pad"] else [0] * step.rank
    counted = torch.ones(len(sources.starts), 1, *sources.size)
    for axis, (cells, pad) in enumerate(zip(shape, padding, strict=True)):
        at = sources.starts[:, axis, None] + np.arange(sources.size[axis])[None]
        inside = torch.from_numpy((at >= -pad) & (at < cells + pad))
        view = [1] * counted.ndim
        view[0], view[2 + axis] = inside.shape
        counted = counted * inside.view(view)
    return counted


def _with_stride(step: IncrementalStep) -> IncrementalStep:
    """Pools take their kernel as their stride where none is given."""
    if step["stride"]:
        return step
    arguments = {**step.arguments, "stride": step["kernel_size"]}
    return IncrementalStep(step.operator, arguments, step.output)


def interpolation(step: IncrementalStep) -> Changed | None:
    """``F.interpolate`` in every mode: a matrix per axis, taken from the operator itself."""
    value = step.value()
    matrices = _matrices(step)
    reaches = [_reach(matrix) for matrix in matrices]
    boxes = step.grow(value, reaches)
    if boxes is None:
        return None
    sources = read(boxes, reaches, value.base.spatial)
    content = value.content(sources)
    for axis, matrix in enumerate(matrices):
        content = _mapped(content, axis, _blocks(matrix, axis, boxes, sources))
    return boxes, content


def _matrices(step: IncrementalStep) -> list[Tensor]:
    value, scales = step.value().base, [name for name in step.arguments if "scale" in name]
    names = scales if len(scales) == step.rank else [None] * step.rank
    return [
        _matrix(
            step.operator,
            axis,
            (cells, step.output.spatial[axis], step.rank),
            step.arguments.get("align_corners"),
            name,
            step.arguments[name] if name else None,
            value.dtype,
            value.device,
        )
        for axis, (cells, name) in enumerate(zip(value.spatial, names, strict=True))
    ]


@lru_cache(maxsize=64)
def _matrix(
    operator: OpOverload,
    axis: int,
    sizes: tuple[int, int, int],
    align_corners: bool | None,
    scale_name: str | None,
    scale: float | None,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """What each output cell takes from each input cell along an axis, ``(outputs, inputs)``."""
    before, after, rank = sizes
    # Two cells along the other axes: antialiasing is wrong in torch where there is one.
    shape, size, view = [2] * rank, [2] * rank, [1] * rank
    shape[axis], size[axis], view[axis] = before, after, before
    identity = torch.eye(before, dtype=dtype, device=device).view(before, 1, *view)
    identity = identity.expand(before, 1, *shape).contiguous()
    named: dict[str, Any] = {} if align_corners is None else {"align_corners": align_corners}
    if scale_name is not None:
        named[scale_name] = scale
    lines = operator(identity, size, **named).movedim(2 + axis, 1)
    return lines.flatten(2)[..., 0].T.contiguous()  # type: ignore[no-any-return]


@lru_cache(maxsize=64)
def _reach(matrix: Tensor) -> Reach:
    """Kept, as finding it waits for the device."""
    return Reach.weighted(matrix)


def _blocks(matrix: Tensor, axis: int, boxes: BoxSet, sources: BoxSet) -> Tensor:
    rows, columns = boxes.starts[:, axis].tolist(), sources.starts[:, axis].tolist()
    high, wide = boxes.size[axis], sources.size[axis]
    pairs = zip(rows, columns, strict=True)
    return torch.stack([matrix[row : row + high, at : at + wide] for row, at in pairs])


def _mapped(content: Tensor, axis: int, blocks: Tensor) -> Tensor:
    lines = content.movedim(2 + axis, -1)
    mapped = torch.matmul(lines.flatten(1, -2), blocks.transpose(1, 2))
    return mapped.view(*lines.shape[:-1], -1).movedim(-1, 2 + axis).contiguous()


def constant_padding(step: IncrementalStep) -> Changed | None:
    """``F.pad`` with a constant, also of channels; negative padding crops."""
    value, pad = step.value(), list(step["pad"])
    spatial = pad[: 2 * step.rank] + [0] * (2 * step.rank - len(pad))
    before = spatial[::2][::-1]
    reaches = [
        Reach.strided(cells, -before[axis], 1, 1) for axis, cells in enumerate(step.output.spatial)
    ]
    boxes = step.grow(value, reaches)
    if boxes is None or any(pad[2 * step.rank + 2 :]):
        return None
    content = value.content(read(boxes, reaches), fill=float(step["value"]))
    channels = pad[2 * step.rank : 2 * step.rank + 2]
    if any(channels):
        content = step.run(self=content, pad=[0] * (2 * step.rank) + channels)
    return boxes, content


def rearrangement(step: IncrementalStep) -> Changed | None:
    """Operators that copy cells along axes: reflection, replication, slices and flips."""
    value = step.value()
    if any(index % (2 + step.rank) < 2 for index in step.arguments.get("dims") or ()):
        return None
    taken = [_cells_taken(step, axis) for axis in range(step.rank)]
    reaches = [Reach(cells, cells) for cells in taken]
    boxes = step.grow(value, reaches)
    if boxes is None:
        return None
    sources = read(boxes, reaches, value.base.spatial)
    device = value.base.device
    take = [
        [
            torch.from_numpy(taken[axis][at : at + boxes.size[axis]] - source).to(device)
            for axis, (at, source) in enumerate(zip(start, begin, strict=True))
        ]
        for start, begin in zip(boxes.starts.tolist(), sources.starts.tolist(), strict=True)
    ]
    return boxes, one_by_one(value.content(sources), take)


def _cells_taken(step: IncrementalStep, axis: int) -> Integers:
    """Which input cell each output cell is."""
    cells = torch.arange(step.value().base.spatial[axis])
    if "padding" in step.arguments:
        ends = list(step["padding"])[2 * (step.rank - 1 - axis) :][:2]
        mode = "reflect" if "reflection" in step.operator._schema.name else "replicate"
        cells = functional.pad(cells.double()[None, None], ends, mode)[0, 0].long()
    elif "dims" in step.arguments:
        turned = {index % (2 + step.rank) for index in step["dims"]}
        cells = cells.flip(0) if 2 + axis in turned else cells
    elif step["dim"] % (2 + step.rank) == 2 + axis:
        cells = cells[step["start"] : step["end"] : step["step"]]
    found: Integers = cells.numpy()
    return found


def _named(names: str, rule: Rule) -> dict[str, Rule]:
    every = (name.format(r=rank) for name in names.split() for rank in (1, 2, 3))
    return dict.fromkeys(every, rule)


RULES: dict[str, Rule] = {
    **_named("convolution", convolution),
    **_named("max_pool{r}d max_pool{r}d_with_indices", max_pool),
    **_named("avg_pool{r}d", average_pool),
    **_named("upsample_nearest{r}d _upsample_nearest_exact{r}d", interpolation),
    **_named("upsample_linear1d upsample_bilinear2d upsample_trilinear3d", interpolation),
    **_named("upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa", interpolation),
    **_named("constant_pad_nd", constant_padding),
    **_named("reflection_pad{r}d replication_pad{r}d slice flip", rearrangement),
}
"""The rule of each operator, by its name without namespace and overload."""
