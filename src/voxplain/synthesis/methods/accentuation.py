"""Feature accentuation: what in a patient's image drives a unit, made stronger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field

from voxplain.synthesis.jobs import Drive, Recipe, SynthesisJob
from voxplain.synthesis.methods.base import SynthesisMethod, Synthesized, registered
from voxplain.synthesis.objectives.base import Objective
from voxplain.synthesis.objectives.layers import StartLikeness
from voxplain.synthesis.objectives.outputs import WeightedSum
from voxplain.synthesis.parametrizations import Accentuation
from voxplain.synthesis.regularization import Regularization
from voxplain.synthesis.transforms import Transforms
from voxplain.synthesis.update_rules import AdamUpdate
from voxplain.synthesis.workbench import Workbench, stacked

_GENTLE = Transforms(tilt=2, rotation=5, scale=0.05, jitter=0.02, blur=0, field=0.02, dropout=0)


@registered
class FeatureAccentuation(SynthesisMethod):
    """A patient's image, changed so that it drives a unit more; the default view of a unit.

    The phases of its waves are optimized, and a gain per wave if asked for; a penalty keeps a layer
    near to what it was, relative to the typical size of the unit. Where no change is worth its
    penalty, the image comes back as it was.

    Attributes:
        penalty: Weight of the relative distance in the layer; the unit counts in typical sizes.
        layer: Where the image is to stay near to what it was; that of the unit, the last feature
            layer for a class.
    """

    formula = "argmax f(x) - lambda ||A_l(x) - A_l(x0)|| / ||A_l(x0)|| from x0"
    reference = "Hamblin et al., 2024"
    from_image = True
    name: Literal["feature_accentuation"] = "feature_accentuation"
    steps: int = Field(default=128, ge=1)
    rate: float = Field(default=0.02, gt=0)
    penalty: float = Field(default=0.3, ge=0, description="weight of the distance in the layer")
    layer: str | None = Field(default=None, description="where distance is measured")
    gain: bool = Field(default=False, description="optimize magnitudes as well as phases")
    transforms: Transforms = _GENTLE
    regularization: Regularization = Regularization()
    images: int = Field(default=1, ge=1, description="per unit, under different transforms")

    def run(self, bench: Workbench, units: Sequence[Objective]) -> list[Synthesized]:
        """Units that start from the same part of the image go together."""
        if bench.model.window is None:
            return self._together(bench, units)
        return [found for unit in units for found in self._together(bench, [unit])]

    def _together(self, bench: Workbench, units: Sequence[Objective]) -> list[Synthesized]:
        surface, start = bench.start(self.name, units[0])
        layers = [self.layer or self._nearby(bench, unit) for unit in units]
        reading = bench.read(start, units)
        jobs = [
            SynthesisJob(
                WeightedSum(
                    terms=(unit, StartLikeness(layer=layer)),
                    weights=(1.0, self.penalty * float(unit.typical(reading))),
                    title=unit.slug,
                ),
                bench.keys(unit, self.images),
                stacked(start, self.images),
                unit,
            )
            for unit, layer in zip(units, layers, strict=True)
        ]
        recipe = Recipe(
            surface=surface,
            parametrization=Accentuation(gain=self.gain),
            transforms=self.transforms,
            regularization=self.regularization,
            update=AdamUpdate(self.rate, decays=True),
            steps=self.steps,
        )
        driven = [_unless_worse(found) for found in bench.drive(jobs, recipe)]
        names = tuple(f"image {number}" for number in range(self.images))
        return [
            Synthesized(unit, surface.grid, found, start[0], names, findings={"layer": layer})
            for unit, layer, found in zip(units, layers, driven, strict=True)
        ]

    def _nearby(self, bench: Workbench, unit: Objective) -> str:
        if unit.taps:
            return unit.taps[0].path
        _, start = bench.start(self.name, unit)
        return bench.layers(start).default_layer


def _unless_worse(found: Drive) -> Drive:
    """The start where the image is worth less than it, penalties included."""
    worse = found.after < found.before
    rows = worse.view(-1, *(1,) * (found.images.ndim - 1)).to(found.images.device)
    return replace(
        found,
        images=torch.where(rows, found.first, found.images),
        scores=torch.where(worse, found.first_scores, found.scores),
        after=torch.where(worse, found.before, found.after),
    )
