"""The one optimizer: images of many units are driven at once, each as if it were alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from voxplain.engine.memory import BackwardBudget, in_batches
from voxplain.models.failures import GradientError, gradient_failures_in_words
from voxplain.models.model import Model
from voxplain.synthesis.jobs import Drive, Recipe, SynthesisJob
from voxplain.synthesis.parametrizations import Canvas
from voxplain.synthesis.reading import Reader, Reading, without_gradients
from voxplain.synthesis.surface import Surface

Progress = Callable[[int, int], None]
"""Called with the steps that are done, and those that are planned, of all images."""


def drive(
    model: Model,
    jobs: Sequence[SynthesisJob],
    recipe: Recipe,
    memory: int | None = None,
    progress: Progress | None = None,
) -> list[Drive]:
    """Synthesizes the images of all jobs, as many together as memory allows.

    The result of a job does not depend on the others beyond rounding, as Adam keeps its states per
    number and random numbers come from the keys.

    Args:
        model: The network; left as it was.
        jobs: What is driven.
        recipe: How.
        memory: Bytes for saved activations; None for a default of the device.
        progress: Called after every step.

    Raises:
        ModelError: If the network gives no gradients, or a layer does not exist.
    """
    taps = tuple(dict.fromkeys(tap for job in jobs for tap in job.objective.taps))
    surface = recipe.surface
    example = surface.noise(["example"])
    with torch.inference_mode(False), torch.enable_grad(), model.at_rest(), model.precise():
        reader = Reader(model, _admitted(model, surface, example), taps)
        budget = BackwardBudget(surface.like.device, memory, offload=model.offload)
        counter = _Counter(progress, recipe.steps * sum(len(job.keys) for job in jobs))
        found: dict[int, Drive] = {}

        def run(numbers: range) -> None:
            chosen = [jobs[number] for number in numbers]
            driven = _JobsTogether(reader, chosen, recipe, budget, counter).run()
            found.update(zip(numbers, driven, strict=True))

        _measure(reader, jobs, recipe, budget)
        per_job = max(len(job.keys) for job in jobs)
        budget.size = max(1, budget.size // per_job)
        in_batches(len(jobs), budget, run)
    return [found[number] for number in range(len(jobs))]


def _admitted(model: Model, surface: Surface, noise: Tensor) -> Tensor:
    """An image of plausible intensities, on which the network is tried."""
    return model.admit(surface.in_range(noise))


def _measure(
    reader: Reader, jobs: Sequence[SynthesisJob], recipe: Recipe, budget: BackwardBudget
) -> None:
    """Counts what one image of the first job saves for its backward pass."""
    first = jobs[0]
    start = None if first.start is None else first.start[:1]
    canvas = recipe.parametrization.canvas(recipe.surface, first.keys[:1], start)
    with budget.measured(1):
        reader(canvas.images(0.0))


class _Counter:
    """Steps that are done, of all images."""

    def __init__(self, progress: Progress | None, planned: int) -> None:
        self._progress, self._planned, self._done = progress, planned, 0

    def add(self, steps: int) -> None:
        self._done = min(self._done + steps, self._planned)
        if self._progress is not None:
            self._progress(self._done, self._planned)


class _JobsTogether:
    """Jobs whose images go through the network together."""

    def __init__(
        self,
        reader: Reader,
        jobs: Sequence[SynthesisJob],
        recipe: Recipe,
        budget: BackwardBudget,
        counter: _Counter,
    ) -> None:
        self._reader, self._jobs, self._recipe = reader, jobs, recipe
        self._budget, self._counter = budget, counter
        self._keys = [key for job in jobs for key in job.keys]
        ends = [0, *accumulate(len(job.keys) for job in jobs)]
        self._rows = [slice(*pair) for pair in pairwise(ends)]
        starts = [job.start for job in jobs]
        self._start = (
            torch.cat([each for each in starts if each is not None])
            if any(each is not None for each in starts)
            else None
        )
        self._compares = any(job.objective.compares for job in jobs)

    def run(self) -> list[Drive]:
        recipe = self._recipe
        canvas = recipe.parametrization.canvas(recipe.surface, self._keys, self._start)
        with torch.no_grad():
            first = canvas.images().clone()
            reading = self._compared(self._reader(first), self._start)
            typical = self._each(reading, lambda job, seen: job.objective.typical(seen))
            before, first_scores, _ = self._measured(first, typical)
        ascend = recipe.update.begin(canvas, recipe.surface, recipe.parametrization.pace)
        history = []
        for step in range(recipe.steps):
            history.append(self._step(canvas, step, typical))
            ascend((step + 1) / recipe.steps)
            self._counter.add(len(self._keys))
        with torch.no_grad():
            images = canvas.images().clone()
            after, scores, peaks = self._measured(images, typical)
        values = torch.stack(history).cpu()
        return [
            Drive(
                images=images[rows],
                first=first[rows],
                history=values[:, rows],
                before=before[rows],
                after=after[rows],
                scores=scores[rows],
                first_scores=first_scores[rows],
                peaks=peaks[rows],
            )
            for rows in self._rows
        ]

    def _step(self, canvas: Canvas, step: int, typical: Tensor) -> Tensor:
        """The gradients of one step; returns the score of every image."""
        recipe = self._recipe
        progress = step / recipe.steps
        for parameter in canvas.parameters:
            parameter.grad = None
        with self._budget.saving(len(self._keys)):
            images = canvas.images(progress)
            reading = self._seen(images, step, progress)
            values = self._each(reading, lambda job, seen: job.objective.value(seen))
            loss = -values.sum()
            if not recipe.regularization.is_off:
                penalties = recipe.regularization(images, recipe.surface)
                loss = loss + (typical * penalties).sum()
        self._backward(values, loss, canvas)
        if all(job.unit is None for job in self._jobs):
            return values.detach()
        with torch.no_grad():
            return self._each(reading, lambda job, seen: job.scored.value(seen)).detach()

    def _backward(self, values: Tensor, loss: Tensor, canvas: Canvas) -> None:
        if not values.requires_grad:
            raise without_gradients(self._reader.model, "its output has no graph")
        try:
            with gradient_failures_in_words():
                torch.autograd.backward(loss)
        except GradientError as error:
            raise without_gradients(self._reader.model, str(error)) from error
        if all(parameter.grad is None for parameter in canvas.parameters):
            raise without_gradients(self._reader.model, "its output does not depend on the image")

    def _seen(self, images: Tensor, step: int, progress: float) -> Reading:
        """What the network makes of the images under the transforms of a step."""
        change, surface = self._recipe.transforms, self._recipe.surface
        reading = self._reader(change(images, surface, self._keys, step, progress))
        if not self._compares or self._start is None:
            return reading
        with torch.no_grad():
            return self._compared(reading, change(self._start, surface, self._keys, step, progress))

    def _compared(self, reading: Reading, start: Tensor | None) -> Reading:
        """The reading with that of the start beside it, where an objective asks for it."""
        if not self._compares or start is None:
            return reading
        return replace(reading, start=self._reader(start))

    def _each(self, reading: Reading, number: Callable[[SynthesisJob, Reading], Tensor]) -> Tensor:
        """A number of every image, ``(B,)``."""
        pairs = zip(self._jobs, self._rows, strict=True)
        return torch.cat([number(job, reading.rows(rows)) for job, rows in pairs])

    def _measured(self, images: Tensor, typical: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Objective minus penalties, score, and its peak, without transforms."""
        reading = self._compared(self._reader(images), self._start)
        values = self._each(reading, lambda job, seen: job.objective.value(seen))
        scores = self._each(reading, lambda job, seen: job.scored.value(seen))
        peaks = self._each(reading, lambda job, seen: job.scored.peak(seen))
        penalties = typical * self._recipe.regularization(images, self._recipe.surface)
        return (values - penalties).cpu(), scores.cpu(), peaks.cpu()
