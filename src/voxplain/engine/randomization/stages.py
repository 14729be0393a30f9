"""Stages of a network: the layers with parameters, in the order in which they run."""

from __future__ import annotations

import itertools
from typing import Literal

from torch import Tensor

from voxplain.engine.acceleration.forward_trace import ForwardTrace, own_parameters, trace
from voxplain.errors import ModelError
from voxplain.models.model import Model

Order = Literal["top_down", "bottom_up", "independent"]
"""From the output down, from the input up, or one stage at a time with the others trained."""


def stages(model: Model, example: Tensor, traced: ForwardTrace | None = None) -> tuple[str, ...]:
    """Paths of the modules that hold parameters of their own, in execution order.

    A module counts where one of its parameters is used last: class tokens where they are added,
    an output projection of attention that is never called where attention uses its weights. Shared
    weights count once, at the last of their modules. Modules without parameters of their own, or
    that the forward never uses, are not listed.

    Args:
        model: The network; left as it was.
        example: ``(1, C, *spatial)`` of the size that one call sees.
        traced: The trace of its forward, if there is one already.

    Raises:
        ModelError: If no module with parameters runs.
    """
    paths, seen = [], set[int]()
    for path in reversed((traced or trace(model, example)).by_last_use):
        module = model.network.get_submodule(path)
        new = {id(parameter) for parameter in own_parameters(module)} - seen
        if new:
            paths.append(path)
        seen |= new
    if not paths:
        raise ModelError(f"{model.name} runs no layer with parameters: nothing can be randomized")
    return tuple(reversed(paths))


def grouped(paths: tuple[str, ...], most: int) -> tuple[tuple[str, ...], ...]:
    """Neighboring stages joined to at most ``most`` steps, of nearly equal numbers of layers."""
    count = min(most, len(paths))
    cuts = [round(len(paths) * step / count) for step in range(count + 1)]
    return tuple(paths[a:b] for a, b in itertools.pairwise(cuts))
