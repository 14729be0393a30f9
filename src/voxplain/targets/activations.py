"""Whether an output holds scores or probabilities already, and what makes probabilities of it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from voxplain.errors import TargetError
from voxplain.targets.field import HALF, Activation, lies_in_unit_range, resolve_activation

Meaning = Literal["scores", "exclusive", "independent", "unclear"]
"""Scores; probabilities of which one class holds; probabilities of each class; or not known."""

_PRECISE = 1e-3
_TELLING = 16
"""So many positions whose channels sum to 1 do so on purpose."""


def meaning_of(output: Tensor, squashed: bool | None) -> Meaning:
    """What an output is, as its values and the functions behind it say.

    Args:
        output: ``(B, K)`` or ``(B, K, *spatial)``.
        squashed: Whether the network ends in a sigmoid, a softmax or the like; None if unknown.
    """
    tolerance = _PRECISE if output.dtype in (torch.float32, torch.float64) else HALF
    if not lies_in_unit_range(output, tolerance):
        return "scores"
    if output.shape[1] > 1:
        sums = output.sum(dim=1)
        positions = sums.numel() // len(sums)
        if bool(((sums - 1).abs() <= tolerance).all()) and (
            squashed is not False or positions >= _TELLING
        ):
            return "exclusive"
    if squashed is not None:
        return "independent" if squashed else "scores"
    overlap = (output > 0.5).sum(dim=1) > 1
    return "independent" if output.ndim > 2 and bool(overlap.any()) else "unclear"


def activation_for(asked: Activation, meaning: Meaning, classes: int) -> Activation:
    """What makes probabilities of an output: one of softmax, sigmoid and the two ``_inside``.

    Args:
        asked: The activation of a target.
        meaning: What the output is.
        classes: Number of its channels.

    Raises:
        TargetError: If it is ``auto`` and the meaning of the output is unclear.
    """
    inside: Activation = "softmax_inside" if classes > 1 else "sigmoid_inside"
    if meaning == "independent" or (asked == "none" and meaning == "unclear"):
        inside = "sigmoid_inside"
    if asked == "none":
        return inside
    if asked != "auto" or meaning == "scores":
        return resolve_activation(asked, classes)
    if meaning == "unclear":
        raise TargetError(
            "every output of the network lies between 0 and 1, and it is not known whether these "
            "are probabilities; if so, set the activation of the target to softmax_inside or "
            "sigmoid_inside, and if they are scores, to softmax or sigmoid"
        )
    return inside


def remarks_on(asked: Activation, meaning: Meaning, classes: int) -> tuple[str, ...]:
    """A sentence for readers where an output is no score; none for scores."""
    if meaning in ("scores", "unclear"):
        return ()
    why = "lie between 0 and 1"
    if meaning == "exclusive":
        why += " and sum to 1 over the classes"
    elif classes > 1:
        why += ", and those of several classes may be large at once"
    if asked in ("softmax", "sigmoid"):
        return (
            f"the outputs of the network seem to be probabilities already: they {why}; "
            f"{asked} is applied to them as the target says",
        )
    return (
        f"the outputs of the network are taken as probabilities, to which no softmax or sigmoid is "
        f"applied: they {why}",
    )


_SQUASHING = ("Sigmoid", "Softmax", "SafeSoftmax", "Hardsigmoid", "Hardtanh", "Tanh", "Erf")
_NOT_SQUASHING = (
    "AccumulateGrad", "Addbmm", "Addmm", "Addmv", "Baddbmm", "Bmm", "BatchNorm", "Celu",
    "Convolution", "CudnnBatchNorm", "Dot", "Elu", "Gelu", "GroupNorm", "Hardswish", "LayerNorm",
    "LeakyRelu", "Linalg", "Linear", "LogSoftmax", "LogSigmoid", "MaxPool", "Mish", "Mkldnn", "Mm",
    "Mv", "NativeBatchNorm", "NativeGroupNorm", "NativeLayerNorm", "Prelu", "Relu", "Rrelu", "Silu",
    "Softplus",
)  # fmt: skip
_PASSING = (
    "AdaptiveAvgPool", "Add", "Alias", "Amax", "Amin", "AsStrided", "AvgPool", "Cat", "Clamp",
    "Clone", "ConstantPad", "Copy", "Expand", "Flip", "Gather", "Index", "Max", "Mean", "Min",
    "Mul", "Neg", "Pad", "Permute", "Pow", "ReflectionPad", "Repeat", "ReplicationPad", "Reshape",
    "Roll", "Rsub", "Select", "Slice", "Split", "Squeeze", "Stack", "Sub", "Sum", "T", "ToCopy",
    "Transpose", "Unbind", "Unsafe", "Unsqueeze", "Upsample", "View", "Where",
)  # fmt: skip


def is_squashed(output: Tensor) -> bool | None:
    """Whether a sigmoid, softmax or the like stands behind the last layer of an output.

    Functions that move, add and scale values are passed on the way back through the graph of the
    output, up to the last layers.

    Returns:
        None where the output has no graph, or the graph holds functions that are not known.
    """
    waiting, seen, answer = [output.grad_fn], set(), False if output.grad_fn else None
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        name = type(node).__name__
        behind = [before for before, _ in node.next_functions if before is not None]
        if name.startswith(_SQUASHING):
            return True
        if name.startswith(_NOT_SQUASHING):
            continue
        is_ratio = name.startswith("Div") and len(behind) > 1
        if is_ratio or not name.startswith((*_PASSING, "Div")):
            answer = None
        else:
            waiting += behind
    return answer
