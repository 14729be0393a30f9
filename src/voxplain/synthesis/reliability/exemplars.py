"""How a unit answers to the cases of a cohort: peaks, exemplars with their maps, and vectors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from voxplain.engine.baselines import foreground
from voxplain.engine.cohort import Cohort, CohortCase
from voxplain.engine.context import Context
from voxplain.engine.network_layers import NetworkLayers
from voxplain.engine.observation import Observation, observe
from voxplain.engine.randomness import generator
from voxplain.engine.taps import Tap
from voxplain.image import Image
from voxplain.models.layout import Layout
from voxplain.models.model import Model
from voxplain.synthesis.objectives.base import Objective
from voxplain.synthesis.reading import Reading, at_cell, log_scores, meaning_of_output

Vectors = Mapping[Tap, Tensor]
"""The activations of layers at one place, ``(K,)`` each."""


@dataclass(frozen=True, eq=False)
class CaseAnswer:
    """How a unit answers to one case.

    Attributes:
        case: Its id.
        peak: The unit at its strongest place.
        voxel: That place in the image; None for what has no places.
        at_peak: Layers there; averaged over all places where there is none.
        at_random: Layers at a random place of the foreground, or averaged as well.
    """

    case: str
    peak: float
    voxel: tuple[int, ...] | None
    at_peak: Vectors
    at_random: Vectors


@dataclass(frozen=True, eq=False)
class ExemplarMap:
    """A case with the map of a unit over it.

    Attributes:
        case: Its id.
        image: As the network sees it.
        map: ``(*spatial)`` on its grid; None for a unit without places.
        peak: The unit at its strongest place.
    """

    case: str
    image: Image
    map: Tensor | None
    peak: float


@dataclass(frozen=True, eq=False)
class CohortAnswers:
    """How a unit answers to the cases of a cohort.

    Attributes:
        objective: The unit.
        answers: One per case, in order.
        model: The network.
        cohort: The cases.
    """

    objective: Objective
    answers: tuple[CaseAnswer, ...]
    model: Model
    cohort: Cohort

    @cached_property
    def ranked(self) -> tuple[CaseAnswer, ...]:
        """The strongest first."""
        return tuple(sorted(self.answers, key=lambda answer: -answer.peak))

    def exemplars(self, count: int) -> list[ExemplarMap]:
        """The cases with the largest peaks, strongest first; they are read again."""
        return [self._with_map(answer) for answer in self.ranked[:count]]

    def bottom_exemplars(self, count: int) -> list[ExemplarMap]:
        """The cases with the smallest peaks, weakest first."""
        return [self._with_map(answer) for answer in self.ranked[::-1][:count]]

    def _with_map(self, answer: CaseAnswer) -> ExemplarMap:
        case = self.cohort[answer.case]
        context = Context.open(self.model, case.image)
        seen = observe(context, self.objective.taps)
        found = unit_map(self.objective, context, seen)
        return ExemplarMap(answer.case, case.image, found, answer.peak)


def answers_of(
    model: Model, cohort: Cohort, objective: Objective, layers: Sequence[Tap] = (), seed: int = 0
) -> CohortAnswers:
    """Runs a network once on every case, and keeps what a unit answers.

    Args:
        model: The network.
        cohort: Cases, read one after another.
        objective: The unit.
        layers: Layers whose activations at the place of the peak are kept.
        seed: Of the random places.
    """
    found = [_answer(model, case, objective, layers, seed) for case in cohort]
    return CohortAnswers(objective, tuple(found), model, cohort)


def unit_map(objective: Objective, context: Context, seen: Observation) -> Tensor | None:
    """The map of a unit on the image, ``(*spatial)``; None for what has no places."""
    reading = as_reading(objective, context, seen)
    found = objective.map(reading)
    if found.ndim < 2 or math.prod(found.shape[1:]) < 2:
        return None
    if not objective.taps:
        whole = found[0]
        if tuple(whole.shape) == context.shape:
            return whole
        return torch.nn.functional.interpolate(whole[None, None], size=context.shape)[0, 0]
    windows = found if context.layout is not None else found[0]
    return seen.layers.on_image(objective.taps[0], windows[None])[0]


def as_reading(objective: Objective, context: Context, seen: Observation) -> Reading:
    """An observation as objectives read it, the windows of a network as images of a batch."""
    values = {
        tap: seen[tap].movedim(1, 0) if context.layout is not None else seen[tap][None]
        for tap in objective.taps
    }
    meaning = "scores" if objective.taps else meaning_of_output(context.model, context.example)
    output = log_scores(seen.output, meaning)
    if objective.taps:
        output = output.expand(len(next(iter(values.values()))), *output.shape[1:])
    return Reading(seen.layers, values, output)


def _answer(
    model: Model, case: CohortCase, objective: Objective, layers: Sequence[Tap], seed: int
) -> CaseAnswer:
    context = Context.open(model, case.image, seed)
    taps = tuple(dict.fromkeys((*objective.taps, *layers)))
    seen = observe(context, taps)
    found = objective.map(as_reading(objective, context, seen))
    flat = int(found.flatten().argmax())
    index = tuple(int(i) for i in torch.unravel_index(torch.tensor(flat), found.shape))
    place = _place(objective, context, seen.layers, found.shape, index)
    random = _random_place(context, case.image, f"{seed}/{case.id}") if place else None
    return CaseAnswer(
        case.id,
        float(found.flatten()[flat]),
        None if place is None else _in_image(context, place),
        _at(seen, layers, place),
        _at(seen, layers, random),
    )


Place = tuple[int, tuple[float, ...]]
"""The number of a window, and a voxel in it."""


def _place(
    objective: Objective,
    context: Context,
    layers: NetworkLayers,
    shape: Sequence[int],
    index: tuple[int, ...],
) -> Place | None:
    window, *cell = index
    if math.prod(shape[1:]) < 2:
        return None
    if not objective.taps:
        axes = zip(cell, shape[1:], context.shape, strict=True)
        voxel = tuple((at + 0.5) * size / cells - 0.5 for at, cells, size in axes)
        return _in_window(context.layout, voxel)
    geometry = layers.placed_geometry(objective.taps[0])
    axes3 = zip(cell, geometry.start, geometry.stride, strict=True)
    return window, tuple(start + step * at for at, start, step in axes3)


def _in_window(layout: Layout | None, voxel: tuple[float, ...]) -> Place:
    """The window in which a voxel of the image lies most centrally, and its place there."""
    if layout is None:
        return 0, voxel
    inside = [at + side.start for at, side in zip(voxel, layout.image_box, strict=True)]
    starts = [[side.start for side in layout.box(p)] for p in layout.positions]

    def off_center(number: int) -> float:
        axes = zip(inside, starts[number], layout.size, strict=True)
        return max(float(abs(at - start - (size - 1) / 2)) for at, start, size in axes)

    best = min(range(len(starts)), key=off_center)
    return best, tuple(at - start for at, start in zip(inside, starts[best], strict=True))


def _in_image(context: Context, place: Place) -> tuple[int, ...]:
    window, voxel = place
    offset = [0] * len(voxel)
    if context.layout is not None:
        region = context.layout.box(context.layout.positions[window])
        pairs = zip(region, context.layout.image_box, strict=True)
        offset = [side.start - box.start for side, box in pairs]
    moved = [round(at + start) for at, start in zip(voxel, offset, strict=True)]
    return tuple(min(max(at, 0), size - 1) for at, size in zip(moved, context.shape, strict=True))


def _random_place(context: Context, image: Image, key: str) -> Place:
    inside = torch.stack([foreground(channel) for channel in image.data]).any(dim=0).nonzero()
    chosen = int(torch.randint(len(inside), (1,), generator=generator("exemplars", key)))
    return _in_window(context.layout, tuple(float(at) for at in inside[chosen]))


def _at(seen: Observation, layers: Sequence[Tap], place: Place | None) -> Vectors:
    windowed = seen.layers.layout is not None
    return {
        tap: vector_at(
            seen.layers,
            tap,
            seen[tap][:, place[0] if place else 0] if windowed else seen[tap],
            None if place is None else place[1],
        )
        for tap in layers
    }


def vector_at(
    layers: NetworkLayers, tap: Tap, values: Tensor, voxel: Sequence[float] | None
) -> Tensor:
    """The channels of a layer ``(K, *cells)`` at the cell nearest to a voxel, ``(K,)`` float64.

    Without a voxel, or of a layer without places, they are averaged over all cells.
    """
    geometry = layers.geometry(tap)
    if voxel is None or not geometry.spatial:
        return values.flatten(1).mean(dim=1).double().cpu()
    axes = zip(voxel, geometry.start, geometry.stride, geometry.shape, strict=True)
    cell = [
        min(max(math.floor((at - start) / step + 0.5), 0), size - 1)
        for at, start, step, size in axes
    ]
    return at_cell(values, cell).double().cpu()
