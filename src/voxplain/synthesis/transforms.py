"""Random changes under which a synthesized image must keep driving its unit, in 2-D and 3-D."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional

from voxplain.engine.blur import blurred, isotropic_sigma
from voxplain.engine.randomness import generator, standard_normal
from voxplain.image import Grid
from voxplain.preprocess.resample import along_axes, value_weights
from voxplain.synthesis.surface import Surface

_FIELD_CELLS = 4
"""Of the coarse grid of a smooth intensity field, per axis."""


class Transforms(BaseModel):
    """Random changes before every forward; each is off at 0, and all are differentiable.

    Attributes:
        jitter: Largest shift, as a share of each axis.
        rotation: Largest rotation in the plane of the slices, in degrees.
        tilt: Largest rotation out of that plane, in degrees.
        scale: Largest change of size, as a share.
        blur: Sigma of a blur at the first step, as a share of the shortest axis; it decays to 0
            along the steps.
        noise: Standard deviation of noise, in intensity ranges.
        field: Standard deviation of a smooth field that is added, in intensity ranges.
        dropout: Probability that a channel is replaced by the background; one always stays.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    jitter: float = Field(default=0.04, ge=0, lt=0.5)
    rotation: float = Field(default=10.0, ge=0, le=180)
    tilt: float = Field(default=3.0, ge=0, le=180)
    scale: float = Field(default=0.1, ge=0, lt=1)
    blur: float = Field(default=0.02, ge=0, lt=1)
    noise: float = Field(default=0.02, ge=0)
    field: float = Field(default=0.05, ge=0)
    dropout: float = Field(default=0.1, ge=0, lt=1)

    @classmethod
    def none(cls) -> Transforms:
        """The images as they are."""
        return cls(jitter=0, rotation=0, tilt=0, scale=0, blur=0, noise=0, field=0, dropout=0)

    def __call__(
        self, images: Tensor, surface: Surface, keys: Sequence[str], step: int, progress: float
    ) -> Tensor:
        """Changed images; what changes one depends on its key and the step only.

        Args:
            images: ``(B, C, *spatial)``.
            surface: Where they lie.
            keys: One per image.
            step: Number of the step.
            progress: Share of the steps that are done.
        """
        draws = [_Draw.of(key, step) for key in keys]
        images = self._moved(images, surface.grid, draws)
        images = self._blurred(images, surface.grid, progress)
        images = self._with_field(images, surface, draws)
        images = self._noisy(images, surface, draws)
        return self._with_channels_off(images, surface, draws)

    def _moved(self, images: Tensor, grid: Grid, draws: Sequence[_Draw]) -> Tensor:
        """Shift, rotation and scale in one interpolation; beyond the edge, edge values repeat."""
        if not (self.jitter or self.rotation or self.tilt or self.scale):
            return images
        motions = [self._motion(draw, grid) for draw in draws]
        shape = (len(images), 1, *images.shape[2:])
        places = functional.affine_grid(
            torch.stack(motions).to(images), list(shape), align_corners=False
        )
        return functional.grid_sample(
            images, places, mode="bilinear", padding_mode="border", align_corners=False
        )

    def _motion(self, draw: _Draw, grid: Grid) -> Tensor:
        """``(rank, rank + 1)`` in the coordinates of ``affine_grid``, whose axes are reversed."""
        long = [axis for axis, size in enumerate(grid.shape) if size > 1]
        turn = torch.eye(grid.rank, dtype=torch.float64)
        through = through_plane(grid)
        pairs = [(one, other) for n, one in enumerate(long) for other in long[n + 1 :]]
        for (one, other), share in zip(pairs, draw.angles, strict=False):
            in_plane = through not in (one, other)
            angle = math.radians(share * (self.rotation if in_plane else self.tilt))
            turn = turn @ _rotation(grid.rank, one, other, angle)
        spacing = torch.tensor(grid.spacing, dtype=torch.float64)
        size = torch.tensor(grid.shape, dtype=torch.float64)
        voxels = turn * spacing / spacing[:, None] / (1 + self.scale * draw.scale)
        shift = torch.zeros(grid.rank, dtype=torch.float64)
        for axis, share in zip(long, draw.shifts, strict=False):
            shift[axis] = 2 * self.jitter * share
        normalized = voxels * size / size[:, None]
        return torch.cat([normalized.flip(0, 1), shift.flip(0)[:, None]], dim=1)

    def _blurred(self, images: Tensor, grid: Grid, progress: float) -> Tensor:
        width = self.blur * (1 - progress)
        if width <= 0:
            return images
        return blurred(images, isotropic_sigma(width, grid.shape, grid.spacing))

    def _with_field(self, images: Tensor, surface: Surface, draws: Sequence[_Draw]) -> Tensor:
        if not self.field:
            return images
        shape = tuple(images.shape[2:])
        cells = [min(_FIELD_CELLS, size) for size in shape]
        matrices = [
            value_weights(cell, size, (cell / size - 1) / 2, cell / size) if size > 1 else None
            for cell, size in zip(cells, shape, strict=True)
        ]
        coarse = images.new_empty(images.shape[1], *cells)
        fields = torch.stack([standard_normal(coarse, draw.source("field")) for draw in draws])
        strength = self.field * surface.per_channel(surface.statistics.range)
        return images + strength * along_axes(fields, matrices)

    def _noisy(self, images: Tensor, surface: Surface, draws: Sequence[_Draw]) -> Tensor:
        if not self.noise:
            return images
        strength = self.noise * surface.per_channel(surface.statistics.range)
        noise = [standard_normal(images[0], draw.source("noise")) for draw in draws]
        return images + strength * torch.stack(noise)

    def _with_channels_off(
        self, images: Tensor, surface: Surface, draws: Sequence[_Draw]
    ) -> Tensor:
        channels = images.shape[1]
        if not self.dropout or channels < 2:
            return images
        drawn = torch.stack([torch.rand(channels, generator=d.source("dropout")) for d in draws])
        kept = (drawn >= self.dropout) | (drawn == drawn.amax(dim=1, keepdim=True))
        kept = kept.view(len(images), channels, *(1,) * (images.ndim - 2)).to(images.device)
        return torch.where(kept, images, surface.per_channel(surface.statistics.background))


@dataclass(frozen=True)
class _Draw:
    """The random numbers of one image in one step, -1 to 1; always as many, whatever the rank."""

    key: str
    step: int
    shifts: tuple[float, ...]
    angles: tuple[float, ...]
    scale: float

    @classmethod
    def of(cls, key: str, step: int) -> _Draw:
        source = generator("synthesis", key, "motion", step)
        numbers = (2 * torch.rand(7, generator=source, dtype=torch.float64) - 1).tolist()
        return cls(key, step, tuple(numbers[:3]), tuple(numbers[3:6]), numbers[6])

    def source(self, what: str) -> torch.Generator:
        return generator("synthesis", self.key, what, self.step)


def through_plane(grid: Grid) -> int | None:
    """The axis across the slices of a volume; None for an image with two long axes or fewer.

    The axis with the largest spacing; with equal ones that from inferior to superior where it is
    known, else the last.
    """
    long = [axis for axis, size in enumerate(grid.shape) if size > 1]
    if len(long) < 3:
        return None
    largest = max(grid.spacing)
    coarse = [axis for axis in long if grid.spacing[axis] > 0.99 * largest]
    if len(coarse) < len(long):
        return coarse[-1]
    codes = grid.axis_codes if grid.code else ()
    return next((axis for axis, code in enumerate(codes) if code in "IS"), long[-1])


def _rotation(rank: int, one: int, other: int, angle: float) -> Tensor:
    matrix = torch.eye(rank, dtype=torch.float64)
    matrix[one, one] = matrix[other, other] = math.cos(angle)
    matrix[one, other], matrix[other, one] = -math.sin(angle), math.sin(angle)
    return matrix
