"""One timed pass per network, for the estimate of a plan."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from voxplain.models.model import Model
from voxplain.study.planning.checked_study import CheckedStudy
from voxplain.study.planning.images import read_case


@dataclass(frozen=True)
class TimingTrial:
    """What one forward and backward pass of a whole image costs.

    Attributes:
        seconds: Time of the pass over all windows.
        forward: Time of the forward alone.
        megabytes: What autograd saves for one call of the network.
    """

    seconds: float
    forward: float
    megabytes: float


def time_models(checked: CheckedStudy) -> dict[str, TimingTrial]:
    """Times every network on the first case; forward-only networks without the backward pass."""
    first = next(iter(checked.cases.values()))
    image = read_case(first)
    return {
        name: _probe(loaded.model, loaded.prepare(image).data)
        for name, loaded in checked.models.items()
    }


def _probe(model: Model, data: Tensor) -> TimingTrial:
    layout = model.layout(data.shape[1:])
    calls = len(layout) if layout else 1
    piece = layout.cut(layout.pad(data), layout.positions[:1]) if layout else data[None]
    saved: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    start = time.perf_counter()
    with model.at_rest(), torch.autograd.graph.saved_tensors_hooks(count, lambda kept: kept):
        piece = model.admit(piece).requires_grad_(model.differentiable)
        output = model(piece)
        between = time.perf_counter()
        if output.requires_grad:
            torch.autograd.grad(output.sum(), piece)
    whole = time.perf_counter() - start
    megabytes = sum(saved.values()) / 2**20
    return TimingTrial(whole * calls, (between - start) * calls, megabytes)
