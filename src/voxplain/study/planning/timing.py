"""One timed pass per network, for the estimate of a plan."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from voxplain.models.failures import GradientError, gradient_failures_in_words
from voxplain.models.model import Model
from voxplain.study.planning.checked_study import CheckedStudy
from voxplain.study.planning.images import read_case


@dataclass(frozen=True)
class TimingTrial:
    """Time and memory of one forward and backward pass of a whole image.

    Attributes:
        seconds: Seconds of the pass over all windows.
        forward: Seconds of the forward alone.
        megabytes: Size of the tensors that autograd saves for one call of the network.
    """

    seconds: float
    forward: float
    megabytes: float


def time_models(checked: CheckedStudy) -> dict[str, TimingTrial]:
    """Times every network on the first case; forward-only networks without the backward pass."""
    first = next(iter(checked.cases.values()))
    image = read_case(first)
    return {
        name: _trial_of(loaded.model, loaded.prepare(image).data)
        for name, loaded in checked.models.items()
    }


def _trial_of(model: Model, data: Tensor) -> TimingTrial:
    try:
        return _trial(model, data, model.differentiable)
    except GradientError:  # it may be explained without gradients
        return _trial(model, data, False)


def _trial(model: Model, data: Tensor, differentiable: bool) -> TimingTrial:
    layout = model.layout(data)
    calls = len(layout) if layout else 1
    window = layout.cut(layout.pad(data), layout.positions[:1]) if layout else data[None]
    saved: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    start = time.perf_counter()
    with model.at_rest(), torch.autograd.graph.saved_tensors_hooks(count, lambda kept: kept):
        inputs = model.admit(window).requires_grad_(differentiable)
        output = model(inputs)
        forward = time.perf_counter() - start
        if output.requires_grad:
            with gradient_failures_in_words():
                torch.autograd.grad(output.sum(), inputs)
    seconds = time.perf_counter() - start
    megabytes = sum(saved.values()) / 2**20
    return TimingTrial(seconds * calls, forward * calls, megabytes)
