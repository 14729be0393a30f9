"""Box rules of pointwise operators: each output cell reads the same cell of the operands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from voxplain.engine.acceleration.incremental.boxes import BoxSet, crop
from voxplain.engine.acceleration.incremental.value import (
    BoxRule,
    ChangedBoxes,
    IncrementalStep,
    PartialValue,
)


def pointwise(step: IncrementalStep) -> ChangedBoxes | None:
    """Sums, products, rectifiers, comparisons, concatenated channels."""
    values = list(_values(step.arguments))
    if any(value.base.spatial != step.output.spatial for value in values):
        return None
    changed = [value.boxes for value in values if value.boxes is not None]
    boxes = BoxSet.covering(changed, step.output.spatial)
    arguments = {name: _crop(value, boxes, step) for name, value in step.arguments.items()}
    result = step.run(**arguments)
    return boxes, result[0] if isinstance(result, tuple) else result


def _values(tree: Any) -> Iterator[PartialValue]:
    if isinstance(tree, PartialValue):
        yield tree
    elif isinstance(tree, (tuple, list)):
        for item in tree:
            yield from _values(item)
    elif isinstance(tree, Mapping):
        yield from _values(tuple(tree.values()))


def _crop(argument: Any, boxes: BoxSet, step: IncrementalStep) -> Any:
    if isinstance(argument, PartialValue):
        return argument.content(boxes)
    if isinstance(argument, Tensor):
        return _crop_constant(argument, boxes, step)
    if isinstance(argument, (tuple, list)):
        return [_crop(item, boxes, step) for item in argument]
    return argument


def _crop_constant(tensor: Tensor, boxes: BoxSet, step: IncrementalStep) -> Tensor:
    """The content of the boxes of a constant; the constant itself if it has no spatial axes."""
    full = 2 + step.rank
    if tensor.ndim <= 1 and not _broadcasts(step):
        return tensor
    if all(cells == 1 for cells in tensor.shape[max(0, tensor.ndim - step.rank) :]):
        return tensor
    lifted = tensor.reshape((1,) * (full - tensor.ndim) + tuple(tensor.shape))
    return crop(lifted.expand(1, lifted.shape[1], *step.output.spatial), boxes)


def _broadcasts(step: IncrementalStep) -> bool:
    """Whether the operator broadcasts its tensors; a normalization does not with its weights."""
    return "running_mean" not in step.arguments


def norm_with_stored_statistics(step: IncrementalStep) -> ChangedBoxes | None:
    """Batch normalization by the running statistics."""
    by_data = step.arguments.get("training") or step.arguments.get("use_input_stats")
    return None if by_data else pointwise(step)


def over_channels(step: IncrementalStep) -> ChangedBoxes | None:
    """Softmax over channels; sums, means and maxima of channels with ``keepdim``."""
    dim = step.arguments.get("dim")
    axes = [dim] if isinstance(dim, int) else list(dim or [])
    keeps = step.arguments.get("keepdim", True)
    return pointwise(step) if keeps and [axis % (2 + step.rank) for axis in axes] == [1] else None


def repeated_channels(step: IncrementalStep) -> ChangedBoxes | None:
    """``repeat`` along the channel axis alone."""
    repeats = list(step["repeats"])
    channels_only = len(repeats) == 2 + step.rank and repeats[0] == 1 and set(repeats[2:]) == {1}
    return pointwise(step) if channels_only else None


def slicing(spatial_rule: BoxRule) -> BoxRule:
    """Rule for slices: of channels pointwise, along spatial axes by the given rule."""

    def rule(step: IncrementalStep) -> ChangedBoxes | None:
        axis = step["dim"] % (2 + step.rank)
        if axis == 0:
            return None
        return pointwise(step) if axis == 1 else spatial_rule(step)

    return rule


def _for_all(names: str, rule: BoxRule) -> dict[str, BoxRule]:
    return dict.fromkeys(names.split(), rule)


RULES: dict[str, BoxRule] = {
    **_for_all(
        "clone _to_copy detach alias hardswish _prelu_kernel prelu log_sigmoid_forward rsub "
        "native_channel_shuffle channel_shuffle lift_fresh cat",
        pointwise,
    ),
    **_for_all(
        "native_batch_norm cudnn_batch_norm miopen_batch_norm _batch_norm_with_update "
        "_native_batch_norm_legit_no_training _native_batch_norm_legit",
        norm_with_stored_statistics,
    ),
    **_for_all("_softmax _log_softmax softmax sum mean amax amin", over_channels),
    "repeat": repeated_channels,
}
"""Box rules of the operators that torch does not tag as pointwise, by name."""
