"""From free numbers to images: intensity range, correlation of modalities, and the body mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from voxplain.engine.randomness import generator, standard_normal
from voxplain.image import Grid
from voxplain.synthesis.frequencies import FrequencyGrid
from voxplain.synthesis.image_statistics import ImageStatistics, frequency_grid

_EDGE = 1e-3
"""How near the ends of the range an image may start, as a share of the range."""


@dataclass(frozen=True, eq=False)
class Surface:
    """Where images are synthesized: a grid, and what images are like there.

    Attributes:
        grid: Of the images.
        statistics: Of the images of the user.
        like: A tensor of the type and on the device of the network.
        mask: ``(*spatial)`` of 0 and 1, outside of which images keep :attr:`around`; None for the
            whole grid.
        around: ``(C, *spatial)`` or ``(C, 1, ..., 1)``, what lies outside of the mask.
    """

    grid: Grid
    statistics: ImageStatistics
    like: Tensor
    mask: Tensor | None = None
    around: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """``(C, *spatial)``."""
        return (len(self.statistics.channels), *self.grid.shape)

    @cached_property
    def frequencies(self) -> FrequencyGrid:
        """Of the grid."""
        return frequency_grid(self.grid)

    def per_channel(self, values: Tensor) -> Tensor:
        """Numbers ``(C,)`` as ``(C, 1, ..., 1)`` beside images."""
        return values.to(self.like).view(-1, *(1,) * self.grid.rank)

    def noise(self, keys: Sequence[str], scale: float = 1.0, channels: int = 0) -> Tensor:
        """N(0, scale^2), ``(len(keys), C, *spatial)``: the draw of an image depends on its key."""
        shape = (channels or self.shape[0], *self.grid.shape)
        empty = self.like.new_empty(shape)
        drawn = [standard_normal(empty, generator("synthesis", key, "start")) for key in keys]
        return scale * torch.stack(drawn)

    def mixed(self, values: Tensor) -> Tensor:
        """Channels ``(B, C, *spatial)`` with the correlation of the modalities."""
        mixing = self.statistics.mixing.to(values)
        return torch.einsum("cd,bd...->bc...", mixing, values)

    def in_range(self, values: Tensor) -> Tensor:
        """Any numbers as intensities between the 0.5 and 99.5 % quantiles; 0 becomes the mean."""
        statistics = self.statistics
        low, span = self.per_channel(statistics.low), self.per_channel(statistics.range)
        return low + span * torch.sigmoid(values + self._offset)

    def free(self, images: Tensor) -> Tensor:
        """Numbers that :meth:`in_range` turns into these images, as far as they are in range."""
        statistics = self.statistics
        low, span = self.per_channel(statistics.low), self.per_channel(statistics.range)
        return torch.logit((images - low) / span, eps=_EDGE) - self._offset

    @cached_property
    def _offset(self) -> Tensor:
        statistics = self.statistics
        share = (statistics.mean - statistics.low) / statistics.range
        return torch.logit(self.per_channel(share), eps=_EDGE)

    def composed(self, images: Tensor) -> Tensor:
        """M * x + (1 - m) * what lies around it."""
        if self.mask is None:
            return images
        return torch.where(self.mask.to(images.device) > 0, images, self._surroundings)

    @cached_property
    def _surroundings(self) -> Tensor:
        if self.around is None:
            return self.per_channel(self.statistics.background)
        return self.around.to(self.like)
