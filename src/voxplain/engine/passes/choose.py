"""How a network sees the points of a stream: whole, or window by window."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from voxplain.engine.binding import BoundTarget
from voxplain.engine.context import Context
from voxplain.engine.passes.base import Passes
from voxplain.engine.passes.result import INPUT
from voxplain.engine.passes.whole import WholePasses
from voxplain.engine.passes.windowed import WindowedPasses
from voxplain.engine.rules import Plain, Rule
from voxplain.engine.taps import Tap
from voxplain.models.model import Model
from voxplain.models.precision import GATE, Precision, agreement, is_half, resolve_precision
from voxplain.targets import WeightField


def passes_over(
    context: Context,
    model: Model,
    rule: Rule,
    field: WeightField,
    places: tuple[Tap, ...] = (),
    rebind: Callable[[Tensor], WeightField] | None = None,
) -> Passes:
    """Passes of the kind that the windows of a network ask for.

    Args:
        context: Knows the windows, and how layers are arranged.
        model: The network, in the precision it will run in.
        rule: The backward rule.
        field: The weight field of the batch of unperturbed images.
        places: Where gradients are wanted.
        rebind: Binds the target again at each batch of outputs, for targets that follow.
    """
    asked = (model, rule, field, places, context.arranged, rebind)
    if context.layout is None:
        return WholePasses(*asked)
    return WindowedPasses(*asked, context.spacing)


def gated(context: Context, bound: BoundTarget, images: Tensor) -> Precision:
    """The precision to run in: a half one only where its first gradient agrees with float32.

    Args:
        context: The network, with the precision that was asked for.
        bound: What is explained.
        images: ``(B, C, *spatial)``; the first one is tried.
    """
    model = context.model
    precision = resolve_precision(model.precision, model.device, model.dtype)
    if not is_half(precision):
        return precision
    full, half = (_gradient(context, bound, images[:1], kind) for kind in ("float32", precision))
    return precision if agreement(half, full) >= GATE else "float32"


def _gradient(context: Context, bound: BoundTarget, image: Tensor, precision: Precision) -> Tensor:
    model = context.model.in_precision(precision)
    with model.at_rest():
        passes = passes_over(context, model, Plain(), bound.field, (INPUT,))
        return passes.run(image, [0]).gradients[INPUT]
