"""Box rules of operators that read neighborhoods: computed on boxes with the halo they need."""

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

from voxplain.engine.acceleration.incremental.boxes import (
    BoxSet,
    Integers,
    Reach,
    read_boxes,
    select_cells,
)
from voxplain.engine.acceleration.incremental.value import BoxRule, ChangedBoxes, IncrementalStep
from voxplain.models.model import with_companion


def convolution(step: IncrementalStep) -> ChangedBoxes | None:
    """``conv1d`` to ``conv3d`` and their transposes, any stride, dilation, padding and groups."""
    if not isinstance(step["weight"], Tensor) or isinstance(step["input"], Tensor):
        return None
    return _transposed(step) if step["transposed"] else _convolution(step)


def _convolution(step: IncrementalStep) -> ChangedBoxes | None:
    value = step.value("input")
    reaches = _strided(step, _extents(step))
    boxes = step.affected(value, reaches)
    if boxes is None:
        return None
    content = value.content(read_boxes(boxes, reaches))
    return boxes, _convolved(step, content, padding=[0] * step.rank)


def _transposed(step: IncrementalStep) -> ChangedBoxes | None:
    value, extents = step.value("input"), _extents(step)
    stride, padding = step.per_axis("stride"), step.per_axis("padding")
    reaches = [
        Reach.transposed(cells, -padding[axis], stride[axis], extents[axis])
        for axis, cells in enumerate(step.output.spatial)
    ]
    boxes = step.affected(value, reaches)
    if boxes is None:
        return None
    sources = read_boxes(boxes, reaches)
    if any(extent < pace for extent, pace in zip(extents, stride, strict=True)):
        # Such kernels leave gaps in the output; one more source cell per axis covers them.
        sources = BoxSet(sources.starts, tuple(cells + 1 for cells in sources.size))
    changes = {"padding": [0] * step.rank, "output_padding": [0] * step.rank}
    upsampled = _convolved(step, value.content(sources), **changes)
    offsets = boxes.starts - (sources.starts * np.asarray(stride) - np.asarray(padding))
    inner = BoxSet(offsets, boxes.size)
    return boxes, torch.stack([upsampled[index] for index in inner.indices()])


def _convolved(step: IncrementalStep, content: Tensor, **changes: Any) -> Tensor:
    """The convolution of the content; a lone small volume is doubled, which torch runs faster."""
    result: Tensor = step.run(input=with_companion(content), **changes)
    return result[: len(content)]


def _extents(step: IncrementalStep) -> list[int]:
    """Cells that a kernel spans per axis, dilation included."""
    kernel, dilations = step["weight"].shape[2:], step.per_axis("dilation")
    return [dilation * (size - 1) + 1 for size, dilation in zip(kernel, dilations, strict=True)]


def _strided(step: IncrementalStep, extents: Sequence[int]) -> list[Reach]:
    stride, padding = step.per_axis("stride"), step.per_axis("padding")
    return [
        Reach.strided(cells, -padding[axis], stride[axis], extents[axis])
        for axis, cells in enumerate(step.output.spatial)
    ]


def max_pool(step: IncrementalStep) -> ChangedBoxes | None:
    """Max-pooling in any rank, with padding, dilation and rounding up."""
    value = step.value()
    step = _with_stride(step)
    kernel, dilations = step.per_axis("kernel_size"), step.per_axis("dilation")
    extents = [dilation * (size - 1) + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    reaches = _strided(step, extents)
    boxes = step.affected(value, reaches)
    if boxes is None or not value.base.dtype.is_floating_point:
        return None
    content = value.content(read_boxes(boxes, reaches), fill=-math.inf)
    pooled = step.run(self=content, padding=[0] * step.rank, ceil_mode=False)
    return boxes, pooled[0] if isinstance(pooled, tuple) else pooled


def average_pool(step: IncrementalStep) -> ChangedBoxes | None:
    """Average pooling in any rank; at the border, torch's own divisor."""
    value = step.value()
    step = _with_stride(step)
    reaches = _strided(step, step.per_axis("kernel_size"))
    boxes = step.affected(value, reaches)
    if boxes is None or step.arguments.get("divisor_override"):
        return None
    sources = read_boxes(boxes, reaches)
    changes = {"padding": [0] * step.rank, "ceil_mode": False}
    pooled = step.run(self=value.content(sources), **changes)
    if sources.inside(value.base.spatial):
        return boxes, pooled
    counted = _counted(step, sources, value.base.spatial).to(pooled)
    return boxes, pooled / step.run(self=counted, **changes)


def _counted(step: IncrementalStep, sources: BoxSet, shape: Sequence[int]) -> Tensor:
    """1 where a cell is counted in the divisor, else 0, ``(k, 1, *size)``."""
    padding = step.per_axis("padding") if step["count_include_pad"] else [0] * step.rank
    counted = torch.ones(len(sources.starts), 1, *sources.size)
    for axis, (cells, pad) in enumerate(zip(shape, padding, strict=True)):
        positions = sources.starts[:, axis, None] + np.arange(sources.size[axis])[None]
        inside = torch.from_numpy((positions >= -pad) & (positions < cells + pad))
        view = [1] * counted.ndim
        view[0], view[2 + axis] = inside.shape
        counted = counted * inside.view(view)
    return counted


def _with_stride(step: IncrementalStep) -> IncrementalStep:
    """The step with its stride filled in: pooling takes its kernel size if none is given."""
    if step["stride"]:
        return step
    arguments = {**step.arguments, "stride": step["kernel_size"]}
    return IncrementalStep(step.operator, arguments, step.output)


def interpolation(step: IncrementalStep) -> ChangedBoxes | None:
    """``F.interpolate`` in every mode: one matrix per axis, measured on the operator itself."""
    value = step.value()
    matrices = _matrices(step)
    reaches = [_reach(matrix) for matrix in matrices]
    boxes = step.affected(value, reaches)
    if boxes is None:
        return None
    sources = read_boxes(boxes, reaches, value.base.spatial)
    content = value.content(sources)
    for axis, matrix in enumerate(matrices):
        content = _apply_along(content, axis, _blocks(matrix, axis, boxes, sources))
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
    """Interpolation weights along one axis, ``(outputs, inputs)``."""
    before, after, rank = sizes
    # Two cells along the other axes: torch's antialiasing is wrong for axes of one cell.
    shape, size, view = [2] * rank, [2] * rank, [1] * rank
    shape[axis], size[axis], view[axis] = before, after, before
    identity = torch.eye(before, dtype=dtype, device=device).view(before, 1, *view)
    identity = identity.expand(before, 1, *shape).contiguous()
    keywords: dict[str, Any] = {} if align_corners is None else {"align_corners": align_corners}
    if scale_name is not None:
        keywords[scale_name] = scale
    lines = operator(identity, size, **keywords).movedim(2 + axis, 1)
    return lines.flatten(2)[..., 0].T.contiguous()  # type: ignore[no-any-return]


@lru_cache(maxsize=64)
def _reach(matrix: Tensor) -> Reach:
    """Cached, as computing it waits for the device."""
    return Reach.weighted(matrix)


def _blocks(matrix: Tensor, axis: int, boxes: BoxSet, sources: BoxSet) -> Tensor:
    """The part of the matrix between source and output box, per image ``(k, outputs, inputs)``."""
    rows, columns = boxes.starts[:, axis].tolist(), sources.starts[:, axis].tolist()
    height, width = boxes.size[axis], sources.size[axis]
    return torch.stack(
        [
            matrix[row : row + height, column : column + width]
            for row, column in zip(rows, columns, strict=True)
        ]
    )


def _apply_along(content: Tensor, axis: int, blocks: Tensor) -> Tensor:
    """The content with each line along an axis multiplied by the matrix of its image."""
    lines = content.movedim(2 + axis, -1)
    mapped = torch.matmul(lines.flatten(1, -2), blocks.transpose(1, 2))
    return mapped.view(*lines.shape[:-1], -1).movedim(-1, 2 + axis).contiguous()


def constant_padding(step: IncrementalStep) -> ChangedBoxes | None:
    """``F.pad`` with a constant, also of channels; negative padding crops."""
    value, pad = step.value(), list(step["pad"])
    spatial = pad[: 2 * step.rank] + [0] * (2 * step.rank - len(pad))
    before = spatial[::2][::-1]
    reaches = [
        Reach.strided(cells, -before[axis], 1, 1) for axis, cells in enumerate(step.output.spatial)
    ]
    boxes = step.affected(value, reaches)
    if boxes is None or any(pad[2 * step.rank + 2 :]):
        return None
    content = value.content(read_boxes(boxes, reaches), fill=float(step["value"]))
    channels = pad[2 * step.rank : 2 * step.rank + 2]
    if any(channels):
        content = step.run(self=content, pad=[0] * (2 * step.rank) + channels)
    return boxes, content


def rearrangement(step: IncrementalStep) -> ChangedBoxes | None:
    """Operators that copy cells along axes: reflection, replication, slices and flips."""
    value = step.value()
    if any(dim % (2 + step.rank) < 2 for dim in step.arguments.get("dims") or ()):
        return None
    sources_of = [_source_cells(step, axis) for axis in range(step.rank)]
    reaches = [Reach(cells, cells) for cells in sources_of]
    boxes = step.affected(value, reaches)
    if boxes is None:
        return None
    sources = read_boxes(boxes, reaches, value.base.spatial)
    device = value.base.device
    selected = [
        [
            torch.from_numpy(sources_of[axis][low : low + boxes.size[axis]] - first).to(device)
            for axis, (low, first) in enumerate(zip(output_start, source_start, strict=True))
        ]
        for output_start, source_start in zip(
            boxes.starts.tolist(), sources.starts.tolist(), strict=True
        )
    ]
    return boxes, select_cells(value.content(sources), selected)


def _source_cells(step: IncrementalStep, axis: int) -> Integers:
    """The input cell that each output cell copies."""
    cells = torch.arange(step.value().base.spatial[axis])
    if "padding" in step.arguments:
        padding = list(step["padding"])[2 * (step.rank - 1 - axis) :][:2]
        mode = "reflect" if "reflection" in step.operator._schema.name else "replicate"
        cells = functional.pad(cells.double()[None, None], padding, mode)[0, 0].long()
    elif "dims" in step.arguments:
        flipped = {dim % (2 + step.rank) for dim in step["dims"]}
        cells = cells.flip(0) if 2 + axis in flipped else cells
    elif step["dim"] % (2 + step.rank) == 2 + axis:
        cells = cells[step["start"] : step["end"] : step["step"]]
    indices: Integers = cells.numpy()
    return indices


def _any_rank(names: str, rule: BoxRule) -> dict[str, BoxRule]:
    """The rule under each name, ``{r}`` replaced by 1, 2 and 3."""
    by_rank = (name.format(r=rank) for name in names.split() for rank in (1, 2, 3))
    return dict.fromkeys(by_rank, rule)


RULES: dict[str, BoxRule] = {
    **_any_rank("convolution", convolution),
    **_any_rank("max_pool{r}d max_pool{r}d_with_indices", max_pool),
    **_any_rank("avg_pool{r}d", average_pool),
    **_any_rank("upsample_nearest{r}d _upsample_nearest_exact{r}d", interpolation),
    **_any_rank("upsample_linear1d upsample_bilinear2d upsample_trilinear3d", interpolation),
    **_any_rank("upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa", interpolation),
    **_any_rank("constant_pad_nd", constant_padding),
    **_any_rank("reflection_pad{r}d replication_pad{r}d slice flip", rearrangement),
}
"""The box rule of each operator, by its name without namespace and overload."""
