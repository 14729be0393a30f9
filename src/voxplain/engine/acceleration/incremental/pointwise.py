"""Operators that mix no positions: each cell of the output reads the same cell of the operands."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

from voxplain.engine.acceleration.incremental.boxes import BoxSet, cut
from voxplain.engine.acceleration.incremental.step import Changed, IncrementalStep, Rule
from voxplain.engine.acceleration.incremental.value import PartialValue


def pointwise(step: IncrementalStep) -> Changed | None:
    """Sums, products, rectifiers, comparisons, concatenated channels."""
    values = list(_values(step.arguments))
    if any(value.base.spatial != step.output.spatial for value in values):
        return None
    changed = [value.boxes for value in values if value.boxes is not None]
    boxes = BoxSet.covering(changed, step.output.spatial)
    arguments = {name: _cut(one, boxes, step) for name, one in step.arguments.items()}
    result = step.run(**arguments)
    return boxes, result[0] if isinstance(result, tuple) else result


def _values(tree: Any) -> Iterator[PartialValue]:
    if isinstance(tree, PartialValue):
        yield tree
    elif isinstance(tree, (tuple, list)):
        for part in tree:
            yield from _values(part)
    elif isinstance(tree, Mapping):
        yield from _values(tuple(tree.values()))


def _cut(argument: Any, boxes: BoxSet, step: IncrementalStep) -> Any:
    if isinstance(argument, PartialValue):
        return argument.content(boxes)
    if isinstance(argument, Tensor):
        return _cut_constant(argument, boxes, step)
    if isinstance(argument, (tuple, list)):
        return [_cut(part, boxes, step) for part in argument]
    return argument


def _cut_constant(tensor: Tensor, boxes: BoxSet, step: IncrementalStep) -> Tensor:
    """The part of a constant that lies in the boxes; one without positions as it is."""
    full = 2 + step.rank
    if tensor.ndim <= 1 and not _broadcasts(step):
        return tensor
    if all(cells == 1 for cells in tensor.shape[max(0, tensor.ndim - step.rank) :]):
        return tensor
    lifted = tensor.reshape((1,) * (full - tensor.ndim) + tuple(tensor.shape))
    return cut(lifted.expand(1, lifted.shape[1], *step.output.spatial), boxes)


def _broadcasts(step: IncrementalStep) -> bool:
    """Whether tensors among the arguments are broadcast; weights of a normalization are not."""
    return "running_mean" not in step.arguments


def fixed_norm(step: IncrementalStep) -> Changed | None:
    """Batch normalization by the running statistics."""
    by_data = step.arguments.get("training") or step.arguments.get("use_input_stats")
    return None if by_data else pointwise(step)


def over_channels(step: IncrementalStep) -> Changed | None:
    """Softmax over channels; sums, means and maxima of channels that keep their axis."""
    named = step.arguments.get("dim")
    axes = [named] if isinstance(named, int) else list(named or [])
    keeps = step.arguments.get("keepdim", True)
    return pointwise(step) if keeps and [axis % (2 + step.rank) for axis in axes] == [1] else None


def repetition(step: IncrementalStep) -> Changed | None:
    """``repeat`` of channels."""
    repeats = list(step["repeats"])
    alone = len(repeats) == 2 + step.rank and repeats[0] == 1 and set(repeats[2:]) == {1}
    return pointwise(step) if alone else None


def slicing(elsewhere: Rule) -> Rule:
    """A slice of channels here, of positions by another rule."""

    def rule(step: IncrementalStep) -> Changed | None:
        axis = step["dim"] % (2 + step.rank)
        if axis == 0:
            return None
        return pointwise(step) if axis == 1 else elsewhere(step)

    return rule


def _named(names: str, rule: Callable[[IncrementalStep], Changed | None]) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


RULES: dict[str, Rule] = {
    **_named(
        "clone _to_copy detach alias hardswish _prelu_kernel prelu log_sigmoid_forward rsub "
        "native_channel_shuffle channel_shuffle lift_fresh cat",
        pointwise,
    ),
    **_named(
        "native_batch_norm cudnn_batch_norm miopen_batch_norm _batch_norm_with_update "
        "_native_batch_norm_legit_no_training _native_batch_norm_legit",
        fixed_norm,
    ),
    **_named("_softmax _log_softmax softmax sum mean amax amin", over_channels),
    "repeat": repetition,
}
"""The rule of each operator that torch does not tag as pointwise."""
