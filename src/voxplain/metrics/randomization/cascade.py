"""Cascading randomization: what is left of a map when the network forgets what it learned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from voxplain.attribution.method import Method
from voxplain.attribution.noise import SmoothGrad
from voxplain.attribution.scene import Scene
from voxplain.metrics.again import maps_again
from voxplain.metrics.field import MapField
from voxplain.metrics.question import Probe, Question
from voxplain.metrics.randomization.reinitialize import copied, recalibrate, reinitialize
from voxplain.metrics.randomization.similarity import Similarity, similarity
from voxplain.metrics.randomization.stages import Order, grouped, stages
from voxplain.model import Model


@dataclass(frozen=True, eq=False)
class Steps:
    """What became of one map.

    Attributes:
        stages: The layers that each step randomizes, the trained network first (none).
        curves: Per seed, the similarity with the trained network's map at every step.
        pictures: Per step the map of the first seed, ``(*spatial)``, where they were asked for.
        chance: Similarity between the maps of two independently randomized networks; empty where
            no network is randomized as a whole.
    """

    stages: tuple[tuple[str, ...], ...]
    curves: tuple[tuple[Similarity, ...], ...]
    pictures: tuple[Tensor, ...] = ()
    chance: tuple[Similarity, ...] = ()


@dataclass(frozen=True)
class Cascade(Probe):
    """Maps of all methods while stage after stage loses its training.

    Attributes:
        order: Which stages lose it first.
        steps: Stages are joined to at most so many steps.
        seeds: Repeats with other weights.
        smooth: Noisy copies over which maps are averaged; 0 for the maps themselves.
        pictures: Keep the maps of the first seed.
    """

    explains: ClassVar[bool] = True

    order: Order = "top_down"
    steps: int = 12
    seeds: int = 3
    smooth: int = 0
    pictures: bool = False

    def expected(self, scene: Scene) -> int:
        """Explanations are counted in passes of their streams, not as forwards."""
        return self.steps * self.seeds * max(1, self.smooth)

    def run(self, question: Question, field: MapField) -> dict[str, Steps]:
        """By the key of the method."""
        methods = [self._method(method) for method in question.methods]
        names = {self._method(method).key: method.key for method in question.methods}
        image = question.item.image[None]
        trained = {
            names[key]: maps[0] for key, maps in maps_again(question, image, methods).items()
        }
        groups = grouped(stages(question.scene.model, question.scene.example), self.steps)
        gathered = {name: _Gathered(map) for name, map in trained.items()}
        for seed in range(self.seeds):
            for model in self._networks(question, groups, seed):
                found = maps_again(question.with_model(model), image, methods)
                for key, maps in found.items():
                    gathered[names[key]].add(seed, maps[0], self.pictures)
        shown = ((), *self._ordered(groups))
        random = self.order != "independent"  # whose last network is trained but for one stage
        return {name: part.steps(shown, random) for name, part in gathered.items()}

    def _method(self, method: Method) -> Method:
        if not self.smooth or method.noise() is not None:
            return method
        smoothed = {"of": method, "samples": self.smooth, "label": f"{method.key}, smooth"}
        return SmoothGrad.model_validate({"name": "smoothgrad", **smoothed})

    def _ordered(self, groups: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
        return tuple(reversed(groups)) if self.order == "top_down" else groups

    def _networks(
        self, question: Question, groups: tuple[tuple[str, ...], ...], seed: int
    ) -> Iterator[Model]:
        """One network per step, each valid until the next one."""
        model = copied(question.scene.model)
        shown = question.scene.example
        if question.item.references is not None and question.scene.layout is None:
            shown = torch.cat([shown, question.item.references[:7]])
        drawn: tuple[str, ...] = ()
        for group in self._ordered(groups):
            if self.order == "independent":
                model, drawn = copied(question.scene.model), ()
            drawn += group
            reinitialize(model.network, group, seed)
            recalibrate(model, shown, drawn)
            yield model


@dataclass(eq=False)
class _Gathered:
    """The similarities of one map, step by step."""

    trained: Tensor
    curves: dict[int, list[Similarity]] = field(default_factory=dict)
    pictures: list[Tensor] = field(default_factory=list)
    last: dict[int, Tensor] = field(default_factory=dict)

    def add(self, seed: int, map: Tensor, picture: bool) -> None:
        reduced = map.double().sum(dim=0)
        alike = similarity(self.trained.double().sum(dim=0), reduced)
        self.curves.setdefault(seed, []).append(alike)
        self.last[seed] = reduced.cpu()
        if picture and seed == 0:
            self.pictures.append(reduced.cpu())

    def steps(self, shown: tuple[tuple[str, ...], ...], random: bool) -> Steps:
        same = Similarity(1.0, 1.0, 1.0, 1.0)
        ends = list(self.last.values()) if random else []
        pairs = [(a, b) for n, a in enumerate(ends) for b in ends[n + 1 :]]
        first: list[Any] = [self.trained.double().sum(dim=0).cpu()] if self.pictures else []
        return Steps(
            stages=shown,
            curves=tuple((same, *curve) for curve in self.curves.values()),
            pictures=(*first, *self.pictures),
            chance=tuple(similarity(a, b) for a, b in pairs),
        )
