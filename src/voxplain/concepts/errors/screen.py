"""Which units are worth an exact replacement: a first-order estimate from one backward pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from voxplain.concepts.errors.causes import Substitutes
from voxplain.concepts.errors.labeled_case import ErrorComponent, LabeledCase
from voxplain.engine.passes.points import Points
from voxplain.engine.rules import Plain
from voxplain.engine.taps import Tap


def estimated_drops(
    case: LabeledCase, error: ErrorComponent, taps: Sequence[Tap], substitutes: Substitutes
) -> dict[Tap, Tensor]:
    """About how far the score of an error falls as each unit is replaced, ``(K,)`` per layer.

    <a - r, dm/da>, with m the mean log-odds toward the error, a the activation and r what replaces
    it.

    Raises:
        GradientError: If the network cannot be differentiated.
    """
    context = case.context
    bound = context.bind(case.asked.over(error.mask))
    passes = context.passes(context.model, Plain(), bound.field, tuple(taps))
    with context.model.at_rest():
        result = passes.run(Points(context.inputs, [0]))
    sign = (1 if error.error == "fp" else -1) / error.positions
    found = {}
    for tap in taps:
        gradient = result.gradients[tap][0].double()
        own = result.values[tap][0].double()
        change = own - substitutes.of_layer(case, tap).to(own)
        found[tap] = sign * (change * gradient).flatten(1).sum(dim=1).cpu()
    return found


def strongest(estimates: Sequence[Tensor], count: int) -> tuple[int, ...]:
    """The units of a layer with the largest estimates for any of the errors, in order."""
    largest = torch.stack([each.abs() for each in estimates]).amax(dim=0)
    return tuple(sorted(largest.argsort(descending=True, stable=True)[:count].tolist()))
