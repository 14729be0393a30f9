"""Penalties on synthesized images: R(x) and lambda ||x||^2."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from voxplain.synthesis.surface import Surface

_SMOOTH = 1e-12


class Regularization(BaseModel):
    """Weights of penalties, which are means over voxels and channels in intensity ranges.

    They are relative to the typical size of the unit, the root of the mean square of its layer on
    the images at the start, so that one weight fits units of all sizes.

    Attributes:
        l2: Of ||x||^2.
        total_variation: Of the sum over axes of squared differences to the power of ``beta / 2``.
            They are differences per mm times the smallest spacing, so that a weight means the same
            at every resolution: what is punished most is noise from voxel to voxel.
        beta: Of the total variation.
        alpha_norm: Of |x - mean of the data|^alpha.
        alpha: Of the alpha norm.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    l2: float = Field(default=0.0, ge=0)
    total_variation: float = Field(default=0.0, ge=0)
    beta: float = Field(default=2.0, gt=0)
    alpha_norm: float = Field(default=0.0, ge=0)
    alpha: float = Field(default=6.0, ge=1)

    @property
    def is_off(self) -> bool:
        """Whether all weights are 0."""
        return not (self.l2 or self.total_variation or self.alpha_norm)

    def __call__(self, images: Tensor, surface: Surface) -> Tensor:
        """The penalty of each image ``(B, C, *spatial)``, ``(B,)``."""
        scaled = images / surface.per_channel(surface.statistics.range)
        total = images.new_zeros(len(images))
        if self.l2:
            total = total + self.l2 * scaled.square().flatten(1).mean(dim=1)
        if self.total_variation:
            finest = _finest(surface.grid.shape, surface.grid.spacing)
            variation = total_variation(scaled, surface.grid.spacing, self.beta)
            total = total + self.total_variation * finest**self.beta * variation
        if self.alpha_norm:
            statistics = surface.statistics
            centered = scaled - surface.per_channel(statistics.mean / statistics.range)
            powers = (centered.abs() + _SMOOTH) ** self.alpha
            total = total + self.alpha_norm * powers.flatten(1).mean(dim=1)
        return total


def total_variation(images: Tensor, spacing: Sequence[float], beta: float = 2.0) -> Tensor:
    """Mean over voxels and channels of (sum over axes of (difference / spacing)^2)^(beta / 2).

    The difference is that to the next voxel, 0 at the last one.

    Args:
        images: ``(B, C, *spatial)``.
        spacing: Millimeters per voxel.
        beta: Power; 1 is the usual total variation.

    Returns:
        ``(B,)``.
    """
    squares = torch.zeros_like(images)
    for axis, step in enumerate(spacing, start=2):
        if images.shape[axis] > 1:
            last = images.narrow(axis, images.shape[axis] - 1, 1)
            squares = squares + (images.diff(dim=axis, append=last) / step).square()
    if beta != 2:
        squares = (squares + _SMOOTH) ** (beta / 2)
    return squares.flatten(1).mean(dim=1)


def _finest(shape: Sequence[int], spacing: Sequence[float]) -> float:
    """The smallest spacing of the axes with more than one voxel; 1 if there are none."""
    steps = [step for size, step in zip(shape, spacing, strict=True) if size > 1]
    return min(steps, default=1.0)
