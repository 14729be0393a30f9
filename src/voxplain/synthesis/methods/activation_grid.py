"""Pictures of what a layer holds at every place of an image: an activation grid."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from voxplain.errors import ModelError
from voxplain.synthesis.extent import Extent
from voxplain.synthesis.jobs import Drive, Recipe, SynthesisJob
from voxplain.synthesis.methods.base import SynthesisMethod, Synthesized, registered
from voxplain.synthesis.objectives.base import Objective
from voxplain.synthesis.objectives.layers import DirectionActivation
from voxplain.synthesis.parametrizations import AnyParametrization, Fourier
from voxplain.synthesis.reading import at_cell
from voxplain.synthesis.transforms import Transforms
from voxplain.synthesis.update_rules import AdamUpdate
from voxplain.synthesis.workbench import Workbench


class DirectionMethod(SynthesisMethod):
    """A method that makes one picture for each of many directions of a layer.

    The cell at the center of a picture is driven. Driven everywhere, a picture of a layer with
    padding shows what is strongest, which are often cells at its edge.

    Attributes:
        steps: Of the optimizer.
        rate: Size of a step of Adam.
        power: Of the cosine with the direction.
        parametrization: Which numbers are optimized.
        transforms: Random changes before every forward.
        extent: How large the pictures are.
    """

    steps: int = Field(default=128, ge=1)
    rate: float = Field(default=0.05, gt=0)
    power: float = Field(default=2.0, ge=0, description="of the cosine with the direction")
    parametrization: AnyParametrization = Fourier()
    transforms: Transforms = Transforms(dropout=0)
    extent: Extent = "receptive_field"

    def pictures(
        self,
        bench: Workbench,
        unit: Objective,
        directions: Tensor,
        cells: Sequence[tuple[int, ...]],
        names: Sequence[str],
    ) -> Synthesized:
        """One picture per direction ``(n, K)``, which lie in the cells of a grid."""
        layer = self._layer_of(unit)
        scaled = directions / directions.norm(dim=1, keepdim=True).clamp_min(1e-12)
        driven = [
            DirectionActivation(
                layer=layer, direction=row, power=self.power, where="center", title=name
            )
            for row, name in zip(scaled, names, strict=True)
        ]
        surface = bench.free_surface(driven[:1], self.extent)
        jobs = [SynthesisJob(each, bench.keys(each, 1)) for each in driven]
        recipe = Recipe(
            surface=surface,
            parametrization=self.parametrization,
            transforms=self.transforms,
            update=AdamUpdate(self.rate),
            steps=self.steps,
        )
        drives = bench.drive(jobs, recipe)
        found = side_by_side(drives)
        return Synthesized(unit, surface.grid, found, names=tuple(names), cells=tuple(cells))


@registered
class ActivationGrid(DirectionMethod):
    """A grid of pictures: what drives the activation that a layer has at each place of an image.

    Attributes:
        pictures_at_most: Pictures over the whole image; of a layer with more cells every n-th.
    """

    formula = "argmax dot(A(u), a_v) cos(A(u), a_v)^power for the activation a_v at each place v"
    reference = "Olah et al., 2018"
    from_image = True
    name: Literal["activation_grid"] = "activation_grid"
    pictures_at_most: int = Field(default=36, ge=1, description="over the whole image")

    def run(self, bench: Workbench, units: Sequence[Objective]) -> list[Synthesized]:
        """The layer of every unit."""
        return [self._of_layer(bench, unit) for unit in units]

    def _of_layer(self, bench: Workbench, unit: Objective) -> Synthesized:
        layer = self._layer_of(unit)
        _, start = bench.start(self.name, unit)
        reading = bench.read(start, [unit])
        cells = reading.values[unit.taps[0]][0]
        if math.prod(cells.shape[1:]) < 2:
            raise ModelError(
                f"layer {layer!r} has no spatial axes, and a grid of pictures needs several cells; "
                "choose an earlier layer"
            )
        axes = _every_nth(tuple(cells.shape[1:]), self.pictures_at_most)
        places = list(itertools.product(*axes))
        directions = torch.stack([at_cell(cells, place) for place in places])
        numbered = list(itertools.product(*(range(len(axis)) for axis in axes)))
        names = [f"cell {' '.join(map(str, place))}" for place in places]
        found = self.pictures(bench, unit, directions, numbered, names)
        found.findings.update({"cells": [list(place) for place in places], "layer": layer})
        return found


def _every_nth(shape: tuple[int, ...], most: int) -> list[list[int]]:
    """Indices per axis, evenly spread, whose product is at most so many."""
    long = sum(size > 1 for size in shape)
    side = max(1, math.floor(most ** (1 / max(long, 1)) + 1e-9))
    return [
        sorted({math.floor((n + 0.5) * size / min(side, size)) for n in range(min(side, size))})
        for size in shape
    ]


def side_by_side(drives: Sequence[Drive]) -> Drive:
    """Several drives as one with all their images."""

    def joined(name: str, dim: int = 0) -> Tensor:
        return torch.cat([getattr(each, name) for each in drives], dim=dim)

    return Drive(
        images=joined("images"),
        first=joined("first"),
        history=joined("history", dim=1),
        before=joined("before"),
        after=joined("after"),
        scores=joined("scores"),
        first_scores=joined("first_scores"),
        peaks=joined("peaks"),
    )
