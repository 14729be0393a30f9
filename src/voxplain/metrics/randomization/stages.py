"""Stages of a network: the layers with parameters, in the order in which they run."""

from __future__ import annotations

import contextlib
import itertools
from typing import Literal

import torch
from torch import Tensor, nn

from voxplain.errors import ModelError
from voxplain.model import Model

Order = Literal["top_down", "bottom_up", "independent"]
"""From the output down, from the input up, or one stage at a time with the others trained."""


def stages(model: Model, example: Tensor) -> tuple[str, ...]:
    """Paths of the modules that hold parameters of their own, in execution order.

    A module that runs several times counts at its last run, shared weights once. Modules without
    parameters of their own are no stage, and neither is what the forward never calls.

    Args:
        model: The network; left as it was.
        example: ``(1, C, *spatial)`` of the size that one call sees.

    Raises:
        ModelError: If no module with parameters runs.
    """
    ran: dict[nn.Module, None] = {}

    def finished(module: nn.Module, *_: object) -> None:
        ran.pop(module, None)
        ran[module] = None

    with contextlib.ExitStack() as stack, torch.no_grad(), model.at_rest():
        for module in model.network.modules():
            if _own(module):
                stack.callback(module.register_forward_hook(finished).remove)
        model(example)
    paths = {module: path for path, module in model.network.named_modules()}
    found, seen = [], set[int]()
    for module in reversed(ran):  # shared weights count at the last of the modules that use them
        fresh = {id(part) for part in _own(module)} - seen
        if fresh:
            found.append(paths[module])
        seen |= fresh
    if not found:
        raise ModelError(f"{model.name} runs no layer with parameters: nothing can be randomized")
    return tuple(reversed(found))


def _own(module: nn.Module) -> list[nn.Parameter]:
    return list(module.parameters(recurse=False))


def grouped(paths: tuple[str, ...], most: int) -> tuple[tuple[str, ...], ...]:
    """Neighboring stages as at most so many steps, of nearly equal numbers of layers."""
    count = min(most, len(paths))
    cuts = [round(len(paths) * step / count) for step in range(count + 1)]
    return tuple(paths[a:b] for a, b in itertools.pairwise(cuts))
