"""Random views of the template at 2 mm: other poses, sizes, contrasts, shading, noise and blur."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from template import Template, smoothed
from torch import Tensor
from torch.nn import functional

SHAPE = (76, 92, 80)
"""Voxels of 2 mm that hold the whole brain, each a multiple of 4."""
CENTER = (98.0, 117.0, 77.0)
"""The 1 mm voxel at the middle of the brain."""


@dataclass(frozen=True)
class Strength:
    """How far a view may differ from the template.

    Attributes:
        degrees: Rotation about each axis.
        zoom: Relative size, as the logarithm.
        shift: Displacement, in voxels of 2 mm.
        gamma: Exponent of the intensities, as the logarithm.
        shading: Multiplicative field, as the logarithm.
        noise: Standard deviation, relative to the brightest voxel.
        gain: Relative error of the brightest voxel, by which the image is divided.
    """

    degrees: float = 12.0
    zoom: float = 0.12
    shift: float = 4.0
    gamma: float = 0.3
    shading: float = 0.12
    noise: float = 0.1
    gain: float = 0.1


@dataclass
class Views:
    """A stream of random views, the same for the same seed.

    Attributes:
        template: The template at 1 mm.
        seed: Of every draw.
        strength: How far the views differ from the template.
    """

    template: Template
    seed: int
    strength: Strength = field(default_factory=Strength)

    def __post_init__(self) -> None:
        self._draw = torch.Generator().manual_seed(self.seed)
        self._sources = [smoothed(self.template, millimeters) for millimeters in (0.4, 0.8)]

    def next(self) -> tuple[Tensor, Tensor]:
        """An image ``(1, 1, *SHAPE)`` from 0 to about 1, and its tissues ``(1, 4, *SHAPE)``."""
        image, tissues = self._sources[int(self._uniform(0, 2))]
        grid = self._grid(image.shape[2:])
        view = functional.grid_sample(image, grid, align_corners=True)
        truth = functional.grid_sample(tissues, grid, align_corners=True)
        truth[:, 0] += 1 - truth.sum(dim=1)  # beyond the file there is background
        return self._intensities(view), truth

    def _grid(self, source: torch.Size) -> Tensor:
        """Positions in the 1 mm file, in the units of ``grid_sample``, ``(1, *SHAPE, 3)``."""
        axes = [torch.arange(size) - (size - 1) / 2 for size in SHAPE]
        positions = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
        center = torch.tensor(CENTER) + 2 * self.strength.shift * self._spread(3)
        positions = positions @ self._pose().T + center
        limits = torch.tensor(source) - 1
        return (2 * positions / limits - 1).flip(-1)[None]

    def _pose(self) -> Tensor:
        pose = 2 * torch.eye(3) * torch.exp(self.strength.zoom * self._spread(3))
        for axis, angle in enumerate(math.radians(self.strength.degrees) * self._spread(3)):
            turn = torch.eye(3)
            first, second = [other for other in range(3) if other != axis]
            turn[first, first] = turn[second, second] = torch.cos(angle)
            turn[first, second], turn[second, first] = -torch.sin(angle), torch.sin(angle)
            pose = pose @ turn
        if self._uniform(0, 1) < 0.5:
            pose[:, 0] = -pose[:, 0]  # left and right
        return pose

    def _intensities(self, image: Tensor) -> Tensor:
        brain = image > 0
        image = image.clamp_min(0) ** torch.exp(self.strength.gamma * self._spread(1))
        image = image * torch.exp(self.strength.shading * self._field(image.shape[2:]))
        if self._uniform(0, 1) < 0.3:
            image = functional.avg_pool3d(image, 3, stride=1, padding=1)
        image = image / image.max() * (1 + self.strength.gain * self._spread(1))
        noise = torch.randn(image.shape, generator=self._draw) * self.strength.noise
        # Scanner noise stops at the skull-stripped brain; that of SmoothGrad does not.
        where = brain if self._uniform(0, 1) < 0.5 else torch.ones_like(brain)
        return image + noise * where * self._uniform(0, 1)

    def _field(self, shape: torch.Size) -> Tensor:
        coarse = torch.randn((1, 1, 4, 4, 4), generator=self._draw)
        return functional.interpolate(coarse, size=shape, mode="trilinear", align_corners=True)

    def _spread(self, count: int) -> Tensor:
        return 2 * torch.rand(count, generator=self._draw) - 1

    def _uniform(self, low: float, high: float) -> float:
        return float(torch.rand((), generator=self._draw)) * (high - low) + low
