"""The reliability panel beside a synthesized image: when it may be believed.

Feature visualizations can be made arbitrary, and networks process them unlike real images (Geirhos
et al., 2024). So seven things are measured, each with a verdict.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from voxplain.engine.cohort import Cohort
from voxplain.engine.context import Context
from voxplain.engine.randomization import random_network
from voxplain.engine.taps import Tap
from voxplain.errors import ConfigError, VoxplainError
from voxplain.image import Image
from voxplain.models.model import Model
from voxplain.records.synthesis import ReliabilityItem, ReliabilityRecord
from voxplain.synthesis.reliability.exemplars import ExemplarMap, answers_of
from voxplain.synthesis.reliability.items import (
    dissection_item,
    exemplars_item,
    likeness_item,
    nearness_item,
    random_item,
    reader_of,
    seeds_item,
    strength_item,
)
from voxplain.synthesis.result import Synthesis
from voxplain.synthesis.synthesize import synthesize

NOT_INTERPRETABLE = "not interpretable by synthesis"
"""The caption of a unit whose picture is processed unlike its exemplars, and is what a random
network gives as well."""

_LAYERS = 8
"""Layers that are compared, at most."""


@dataclass(frozen=True, eq=False)
class ReliabilityPanel:
    """Verdicts on a synthesized image, with the cases that drive its unit most and least.

    Attributes:
        record: Items, thresholds and values, as they are written.
        exemplars: Cases with the largest peaks and their maps, strongest first.
        bottom_exemplars: Cases with the smallest peaks, weakest first.
        by_seed: The same synthesis from other seeds, by seed.
        on_random_network: The same synthesis on a network with random weights; None where nothing
            drives the unit there.
    """

    record: ReliabilityRecord
    exemplars: tuple[ExemplarMap, ...]
    bottom_exemplars: tuple[ExemplarMap, ...]
    by_seed: dict[int, Synthesis]
    on_random_network: Synthesis | None


def reliability_panel(
    model: Model,
    synthesis: Synthesis,
    cohort: Cohort,
    *,
    image: Image | None = None,
    dissection: tuple[float, float, float] | None = None,
    top: int = 5,
    seeds: int = 3,
    memory: int | None = None,
) -> ReliabilityPanel:
    """Measures how far a synthesized image may be believed.

    Args:
        model: The network that it was synthesized for; left as it was.
        synthesis: Of one unit, by any method but inversions, grids and atlases.
        cohort: Cases of the user, read one after another.
        image: The patient's image that the synthesis started from, for methods that do.
        dissection: Held-out score of the unit with the ends of its interval.
        top: Exemplars of either kind.
        seeds: Of the same synthesis, the present one included; at least 3 for a verdict.
        memory: Bytes for saved activations.

    Raises:
        ConfigError: If the cohort is empty, the method makes no single images of a unit, or the
            image that it started from is missing.
    """
    _check(synthesis, cohort, image)
    objective = synthesis.objective
    model = Model.of(model).for_task(synthesis.seed)
    layers = compared_layers(model, synthesis)
    answers = answers_of(model, cohort, objective, layers, synthesis.seed)
    again = _Again(synthesis, image, memory)
    by_seed = {synthesis.seed + n: again.on(model, synthesis.seed + n) for n in range(1, seeds)}
    random = again.on_random(model, cohort)
    items = [
        exemplars_item(answers, top),
        strength_item(synthesis, answers),
        likeness_item(model, synthesis, answers, layers, top),
        seeds_item(synthesis, by_seed),
        random_item(model, synthesis, random),
        nearness_item(model, synthesis),
        dissection_item(dissection),
    ]
    record = ReliabilityRecord(
        unit=synthesis.unit,
        items=items,
        caption=caption_of(items),
        exemplars=[{"case": each.case, "peak": each.peak} for each in answers.ranked[:top]],
        bottom_exemplars=[
            {"case": each.case, "peak": each.peak} for each in answers.ranked[::-1][:top]
        ],
        settings={
            "cases": len(cohort),
            "top": top,
            "seeds": seeds,
            "layers": [*map(_path, layers)],
        },
    )
    return ReliabilityPanel(
        record=record,
        exemplars=tuple(answers.exemplars(top)),
        bottom_exemplars=tuple(answers.bottom_exemplars(top)),
        by_seed=by_seed,
        on_random_network=random,
    )


def caption_of(items: Sequence[ReliabilityItem]) -> str:
    """The caption below the picture: a warning where items 3 and 5 fail, else empty."""
    failed = {item.item for item in items if item.verdict == "fail"}
    return NOT_INTERPRETABLE if {"likeness", "random network"} <= failed else ""


def compared_layers(model: Model, synthesis: Synthesis) -> tuple[Tap, ...]:
    """The layers that are compared: leaves with cells, at most eight of them, evenly spread."""
    with model.at_rest():
        reader = reader_of(model, synthesis.images[:1], ())
        paths = reader.layers.placed_leaves
    if len(paths) <= _LAYERS:
        return tuple(map(Tap, paths))
    chosen = [round(n * (len(paths) - 1) / (_LAYERS - 1)) for n in range(_LAYERS)]
    return tuple(Tap(paths[number]) for number in chosen)


def _path(tap: Tap) -> str:
    return tap.path


def _check(synthesis: Synthesis, cohort: Cohort, image: Image | None) -> None:
    name = synthesis.method.name
    if synthesis.cells or name == "inverted_representation":
        raise ConfigError(f"a reliability panel is about pictures of one unit, not about {name}")
    if not len(cohort):
        raise ConfigError("a reliability panel needs cases, and the cohort is empty")
    if synthesis.method.from_image and image is None:
        raise ConfigError(f"{name} started from an image; give it to the panel as well")


@dataclass(frozen=True, eq=False)
class _Again:
    """The same synthesis from another seed, or on another network."""

    synthesis: Synthesis
    image: Image | None
    memory: int | None

    def on(self, model: Model, seed: int) -> Synthesis:
        found = synthesize(
            model,
            self.synthesis.statistics if self.image is None else self.image,
            self.synthesis.method,
            self.synthesis.objective,
            statistics=self.synthesis.statistics,
            seed=seed,
            memory=self.memory,
        )
        return next(iter(found.values()))

    def on_random(self, model: Model, cohort: Cohort) -> Synthesis | None:
        """On a network with random weights; None where nothing can be driven there."""
        images = [
            Context.open(model, case.image).example for case in itertools.islice(iter(cohort), 8)
        ]
        same = [image for image in images if image.shape == images[0].shape]
        try:
            drawn = random_network(model, torch.cat(same), self.synthesis.seed)
            return self.on(drawn, self.synthesis.seed)
        except VoxplainError:
            return None
