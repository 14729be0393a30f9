"""Inverted representation: what a layer keeps of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field

from voxplain.synthesis.jobs import Recipe, SynthesisJob
from voxplain.synthesis.methods.base import SynthesisMethod, Synthesized, registered
from voxplain.synthesis.objectives.base import Objective
from voxplain.synthesis.objectives.layers import MatchedActivation
from voxplain.synthesis.parametrizations import Pixels
from voxplain.synthesis.regularization import Regularization
from voxplain.synthesis.transforms import Transforms
from voxplain.synthesis.update_rules import AdamUpdate
from voxplain.synthesis.workbench import Workbench


@registered
class InvertedRepresentation(SynthesisMethod):
    """An image from noise that a layer cannot tell from the patient's: what the layer keeps.

    What is lost there is filled with what the penalties prefer.
    """

    formula = "argmin ||A(u) - A(x)||^2 / ||A(x)||^2 + l_p sum |u|^p + l_tv TV(u)"
    reference = "Mahendran and Vedaldi, 2015"
    from_image = True
    name: Literal["inverted_representation"] = "inverted_representation"
    steps: int = Field(default=500, ge=1)
    rate: float = Field(default=0.02, gt=0)
    regularization: Regularization = Regularization(alpha_norm=1e-3, total_variation=0.25)
    noise: float = Field(default=0.05, ge=0, description="of the start, in intensity ranges")

    def run(self, bench: Workbench, units: Sequence[Objective]) -> list[Synthesized]:
        """The layer of every unit, all together."""
        groups = [units] if bench.model.window is None else [[unit] for unit in units]
        return [found for group in groups for found in self._together(bench, group)]

    def _together(self, bench: Workbench, units: Sequence[Objective]) -> list[Synthesized]:
        layers = [self._layer_of(unit) for unit in units]
        surface, start = bench.start(self.name, units[0])
        reading = bench.read(start, units)
        jobs = []
        for unit in units:
            (tap,) = unit.taps
            matched = MatchedActivation(layer=tap.path, reference=reading.values[tap][0])
            jobs.append(SynthesisJob(matched, bench.keys(unit, 1)))
        recipe = Recipe(
            surface=surface,
            parametrization=Pixels(bounded=False, noise=self.noise),
            transforms=Transforms.none(),
            regularization=self.regularization,
            update=AdamUpdate(self.rate, decays=True),
            steps=self.steps,
        )
        driven = bench.drive(jobs, recipe)
        return [
            Synthesized(
                unit,
                surface.grid,
                found,
                start[0],
                ("image 0",),
                findings={
                    "layer": layer,
                    "relative distance in the layer": -float(found.scores[0]),
                    "correlation with the image": float(
                        torch.corrcoef(torch.stack([found.images.flatten(), start.flatten()]))[0, 1]
                    ),
                },
            )
            for unit, layer, found in zip(units, layers, driven, strict=True)
        ]
