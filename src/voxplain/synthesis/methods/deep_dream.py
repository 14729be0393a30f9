"""DeepDream: what a layer sees in a patient's image, made stronger from coarse to fine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from voxplain.image import Grid
from voxplain.preprocess.resample import along_axes, value_weights
from voxplain.synthesis.jobs import Drive, Recipe, SynthesisJob
from voxplain.synthesis.methods.base import SynthesisMethod, Synthesized, registered
from voxplain.synthesis.objectives.base import Objective
from voxplain.synthesis.parametrizations import Pixels
from voxplain.synthesis.surface import Surface
from voxplain.synthesis.transforms import Transforms
from voxplain.synthesis.update_rules import NormalizedUpdate
from voxplain.synthesis.workbench import Workbench


@registered
class DeepDream(SynthesisMethod):
    """A patient's image, changed by what drives a layer or a channel, octave by octave.

    In every octave voxels become smaller by ``factor``, cubes in mm where spacing allows; what was
    changed in the coarser one is carried on. Intensities stay in the range of the data, and what
    lies around the body stays as it is. Steps and rate are those of the paper's code (10 steps of
    1.5 of 256 gray values): where ``octaves * steps * rate`` comes near 1, most voxels end at the
    ends of the range. Some are left at the edge of the body, where a network may have learned the
    edge between tissue and a constant background.

    Attributes:
        octaves: Number of resolutions; the last one is that of the image.
        factor: Ratio of their voxel sizes.
        steps: Per octave.
        rate: Mean change per step, in intensity ranges.
        jitter: Largest random shift before a forward, as a share of each axis.
    """

    formula = "ascend mean A(x)^2 from x0 by g / mean|g|, octaves coarse to fine"
    reference = "Mordvintsev et al., 2015"
    from_image = True
    name: Literal["deep_dream"] = "deep_dream"
    octaves: int = Field(default=4, ge=1)
    factor: float = Field(default=1.4, gt=1)
    steps: int = Field(default=10, ge=1, description="per octave")
    rate: float = Field(default=0.006, gt=0, description="mean change per step, in ranges")
    jitter: float = Field(default=0.04, ge=0, lt=0.5)

    def run(self, bench: Workbench, units: Sequence[Objective]) -> list[Synthesized]:
        """Unit after unit where windows differ, else together."""
        groups = [units] if bench.model.window is None else [[unit] for unit in units]
        return [found for group in groups for found in self._together(bench, group)]

    def _together(self, bench: Workbench, units: Sequence[Objective]) -> list[Synthesized]:
        surface, start = bench.start(self.name, units[0])
        grids = self.grids(surface.grid, bench.strides(start))
        details = [torch.zeros_like(start) for _ in units]
        parts: list[list[Drive]] = []
        for grid in grids:
            base = resized(start, grid.shape)
            first = [base + resized(detail, grid.shape) for detail in details]
            parts.append(self._octave(bench, units, _on(surface, grid), base, first))
            details = [found.images - base for found in parts[-1]]
        drives = [_joined([part[number] for part in parts], start) for number in range(len(units))]
        scores = bench.scores(start, units)
        drives = [
            replace(found, first_scores=score, before=score)
            for found, score in zip(drives, scores, strict=True)
        ]
        octaves = {"octaves": [list(grid.shape) for grid in grids]}
        return [
            Synthesized(unit, surface.grid, found, start[0], ("image 0",), findings=octaves)
            for unit, found in zip(units, drives, strict=True)
        ]

    def _octave(
        self,
        bench: Workbench,
        units: Sequence[Objective],
        surface: Surface,
        base: Tensor,
        first: Sequence[Tensor],
    ) -> list[Drive]:
        still = Transforms.none().model_copy(update={"jitter": self.jitter})
        jobs = [
            SynthesisJob(unit, bench.keys(unit, 1), start)
            for unit, start in zip(units, first, strict=True)
        ]
        recipe = Recipe(
            surface=surface,
            parametrization=Pixels(bounded=False),
            transforms=still,
            update=NormalizedUpdate(self.rate, _limits(surface, base)),
            steps=self.steps,
        )
        return bench.drive(jobs, recipe)

    def grids(self, grid: Grid, strides: Sequence[int]) -> list[Grid]:
        """The grids of the octaves, from coarse to fine, each over the whole of the image.

        Voxels are cubes in mm where they can be: an axis with large voxels keeps them until the
        others have become as large. Shapes are multiples of the strides of the network.
        """
        finest = min(grid.spacing)
        found = []
        for octave in range(self.octaves - 1, -1, -1):
            width = finest * self.factor**octave
            sizes = [
                min(size, step * max(1, math.ceil(size * length / max(width, length) / step)))
                for size, length, step in zip(grid.shape, grid.spacing, strides, strict=True)
            ]
            ratios = [size / new for size, new in zip(grid.shape, sizes, strict=True)]
            found.append(grid.sub([(ratio - 1) / 2 for ratio in ratios], ratios, sizes))
        return found


def resized(images: Tensor, shape: Sequence[int]) -> Tensor:
    """Images ``(B, C, *spatial)`` over the same field of view in another number of voxels."""
    matrices = [
        None if size == new else value_weights(size, new, (size / new - 1) / 2, size / new)
        for size, new in zip(images.shape[2:], shape, strict=True)
    ]
    return along_axes(images, matrices)


def _on(surface: Surface, grid: Grid) -> Surface:
    """The same on the grid of an octave."""
    mask = surface.mask
    if mask is not None:
        mask = (resized(mask[None, None], grid.shape)[0, 0] > 0.5).double()
    return Surface(grid, surface.statistics, surface.like, mask)


def _limits(surface: Surface, base: Tensor) -> tuple[Tensor, Tensor]:
    """Lowest and highest intensity of every voxel: the range of the data, and the image itself.

    Outside of the body mask the image stays as it is.
    """
    statistics = surface.statistics
    lowest = torch.minimum(base, surface.per_channel(statistics.low))
    highest = torch.maximum(base, surface.per_channel(statistics.high))
    if surface.mask is None:
        return lowest, highest
    inside = surface.mask.to(base.device) > 0
    return torch.where(inside, lowest, base), torch.where(inside, highest, base)


def _joined(parts: Sequence[Drive], start: Tensor) -> Drive:
    """All octaves as one drive: the histories one after another, the images of the last."""
    last = parts[-1]
    history = torch.cat([part.history for part in parts])
    return replace(last, first=start, history=history)
