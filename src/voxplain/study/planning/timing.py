"""Timed passes of every network and image size, and how long a plan takes by them."""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from voxplain.models.failures import GradientError, gradient_failures_in_words
from voxplain.models.model import Model
from voxplain.study.planning.analysis_task import AnalysisTask, AnyTask
from voxplain.study.planning.checked_study import CheckedStudy
from voxplain.study.planning.images import read_case

_MOST_SIZES = 8
"""Image sizes of which passes are timed for each network; others are estimated by their voxels."""


@dataclass(frozen=True)
class TimingTrial:
    """Time and memory of one forward and backward pass of a whole image.

    Attributes:
        seconds: Seconds of the pass over all windows.
        forward: Seconds of the forward alone.
        megabytes: Size of the tensors that autograd saves for one call of the network.
        voxels: Of the image after preprocessing.
    """

    seconds: float
    forward: float
    megabytes: float
    voxels: int = 1


class Timings:
    """How long tasks take, by trials of their networks.

    Args:
        trials: By network, for images of several sizes.
        voxels: Of the image of each case after the preprocessing of each network.
    """

    def __init__(
        self, trials: Mapping[str, list[TimingTrial]], voxels: Mapping[tuple[str, str], int]
    ) -> None:
        self.trials, self._voxels = trials, voxels

    def seconds(self, task: AnyTask) -> float:
        """About how long a task takes, by the trial of the nearest size."""
        case, model, _ = task.place
        cases = task.cases if isinstance(task, AnalysisTask) else (case,)
        voxels = sum(self._voxels[each, model] for each in cases) / len(cases)
        trials = self.trials[model]
        trial = min(trials, key=lambda each: abs(math.log(each.voxels / voxels)))
        passes = task.passes - task.forwards
        once = task.forwards * trial.forward + passes * trial.seconds
        return once * voxels / trial.voxels

    def makespan(self, tasks: Iterable[AnyTask], workers: int) -> float:
        """About how long workers take for tasks, if each takes the longest that is left."""
        ends = [0.0] * max(1, workers)
        for duration in sorted(map(self.seconds, tasks), reverse=True):
            heapq.heapreplace(ends, ends[0] + duration)
        return max(ends)

    def megabytes(self, model: str) -> float:
        """What autograd saves for one call of a network, at most."""
        return max(trial.megabytes for trial in self.trials[model])


def time_models(checked: CheckedStudy) -> Timings:
    """Times every network on images of several sizes; forward-only ones without the backward."""
    voxels = {place: math.prod(shape) for place, shape in checked.shapes.items()}
    trials: dict[str, list[TimingTrial]] = {}
    for name, loaded in checked.models.items():
        sizes: dict[tuple[int, ...], str] = {}
        for (case, model), shape in checked.shapes.items():
            if model == name:
                sizes.setdefault(shape, case)
        for shape in _spread(sorted(sizes, key=math.prod)):
            image = loaded.prepare(read_case(checked.cases[sizes[shape]]))
            trials.setdefault(name, []).append(_trial_of(loaded.model, image.data))
    return Timings(trials, voxels)


def _spread(sizes: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Some sizes from the smallest to the largest."""
    if len(sizes) <= _MOST_SIZES:
        return sizes
    last = len(sizes) - 1
    return [sizes[round(place * last / (_MOST_SIZES - 1))] for place in range(_MOST_SIZES)]


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
    voxels = data[0].numel()
    return TimingTrial(seconds * calls, forward * calls, megabytes, voxels)
