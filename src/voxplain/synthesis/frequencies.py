"""Fourier transforms of images of any rank, and spatial frequencies in cycles per millimeter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from types import EllipsisType

import torch
from torch import Tensor


@dataclass(frozen=True)
class FrequencyGrid:
    """The spatial frequencies of images on one grid.

    The last axis with more than one voxel holds half of the frequencies, as images are real; so a
    volume of one slice has the frequencies of the slice.

    Attributes:
        shape: Of the images.
        spacing: Millimeters per voxel, or 1 where it is unknown.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]

    @cached_property
    def _halved(self) -> int:
        long = [axis for axis, size in enumerate(self.shape) if size > 1]
        return long[-1] if long else len(self.shape) - 1

    @property
    def _axes(self) -> tuple[int, ...]:
        """The axes in the order of the transform, counted from the end."""
        order = [axis for axis in range(len(self.shape)) if axis != self._halved]
        return tuple(axis - len(self.shape) for axis in (*order, self._halved))

    @cached_property
    def radius(self) -> Tensor:
        """sqrt(sum of squared frequencies of the axes) in cycles per mm, float64."""
        total = torch.zeros((), dtype=torch.float64)
        for axis, (size, step) in enumerate(zip(self.shape, self.spacing, strict=True)):
            of_axis = torch.fft.rfftfreq if axis == self._halved else torch.fft.fftfreq
            squares = of_axis(size, step, dtype=torch.float64).square()
            total = total + squares.view(-1, *(1,) * (len(self.shape) - 1 - axis))
        return total.sqrt()

    @property
    def constant(self) -> tuple[EllipsisType | int, ...]:
        """The index of the coefficient of the mean in ``(..., *frequencies)``."""
        return (..., *(0,) * len(self.shape))

    @property
    def lowest(self) -> float:
        """One cycle over the longest axis, per mm."""
        return 1 / max(size * step for size, step in zip(self.shape, self.spacing, strict=True))

    @property
    def common(self) -> float:
        """Up to this frequency per mm there are waves in every direction."""
        steps = [step for size, step in zip(self.shape, self.spacing, strict=True) if size > 1]
        return 0.5 / max(steps, default=1.0)

    def forward(self, images: Tensor) -> Tensor:
        """The coefficients of images ``(..., *shape)``; the transform keeps the sum of squares."""
        coefficients: Tensor = torch.fft.rfftn(images, dim=self._axes, norm="ortho")
        return coefficients

    def inverse(self, coefficients: Tensor) -> Tensor:
        """The images ``(..., *shape)`` of coefficients."""
        sizes = [self.shape[axis] for axis in self._axes]
        images: Tensor = torch.fft.irfftn(coefficients, s=sizes, dim=self._axes, norm="ortho")
        return images

    def odd(self, phases: Tensor) -> Tensor:
        """Phases that belong to a real image: opposite at opposite frequencies.

        Where the halved axis holds both a frequency and its opposite, their mean difference is
        taken; a frequency that is its own opposite gets 0.
        """
        opposite = phases
        for axis in self._axes[:-1]:
            opposite = opposite.flip(axis).roll(1, axis)
        return torch.where(self._own_plane.to(phases.device), (phases - opposite) / 2, phases)

    @cached_property
    def _own_plane(self) -> Tensor:
        """Where the opposite of a frequency has a coefficient of its own."""
        size = self.shape[self._halved]
        index = torch.arange(size // 2 + 1)
        own = (index == 0) | (2 * index == size)
        return own.view(-1, *(1,) * (len(self.shape) - 1 - self._halved))


def shared_spacing(shape: Sequence[int], spacing: Sequence[float] | None) -> tuple[float, ...]:
    """The spacing, or 1 for every axis where it is unknown."""
    return tuple(spacing) if spacing is not None else (1.0,) * len(shape)
