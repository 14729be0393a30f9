"""The grid of cubic voxels on which regions are computed, and the labels back on the image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from voxplain.regions.spec import Spacing


def thick_axes(shape: Sequence[int]) -> list[int]:
    """The axes of more than one voxel, but at least two, as a picture has.

    A volume of one slice is divided along these alone, and so gets the regions of the slice.
    """
    long_axes_first = sorted(range(len(shape)), key=lambda axis: shape[axis] == 1)
    long_axes = sum(length > 1 for length in shape)
    return sorted(long_axes_first[: max(2, long_axes)])


@dataclass(frozen=True)
class WorkingGrid:
    """Cubic voxels over the axes of an image that have more than one voxel.

    Attributes:
        source: Spatial shape of the image.
        flat: Spatial shape without axes of one voxel.
        shape: Number of cubic voxels along these axes.
    """

    source: tuple[int, ...]
    flat: tuple[int, ...]
    shape: tuple[int, ...]

    @classmethod
    def over(
        cls,
        shape: Sequence[int],
        spacing: Spacing,
        voxels: int | None = None,
        nearly: float = 1.0,
    ) -> WorkingGrid:
        """The grid for an image.

        Args:
            shape: Spatial shape of the image.
            spacing: Millimeters per voxel; None for cubic voxels.
            voxels: Approximate number of voxels of the grid; that of the image if None.
            nearly: Largest ratio of sides up to which voxels count as cubic, since resampling them
                would only blur.
        """
        kept = thick_axes(shape)
        flat = [shape[axis] for axis in kept]
        steps = [1.0 if spacing is None else float(spacing[axis]) for axis in kept]
        if max(steps) <= nearly * min(steps):
            steps = [1.0] * len(steps)
        sides = [length * step for length, step in zip(flat, steps, strict=True)]
        edge = (math.prod(sides) / (voxels or math.prod(flat))) ** (1 / len(sides))
        cubic = tuple(max(1, round(side / edge)) for side in sides)
        return cls(tuple(shape), tuple(flat), cubic)

    def flatten(self, image: Tensor) -> Tensor:
        """``(C, *spatial)`` without axes of one voxel."""
        return image.reshape(len(image), *self.flat)

    def bring(self, image: Tensor, order: int = 1) -> Tensor:
        """``(C, *spatial)`` on the working grid, smoothed where it is coarser.

        Args:
            image: Floating point, on the CPU.
            order: Order of the spline between voxels.
        """
        flat = self.flatten(image)
        if self.shape == self.flat:
            return flat
        from skimage.transform import resize

        resized = [
            resize(channel, self.shape, order, mode="edge", anti_aliasing=True)  # type: ignore[no-untyped-call]
            for channel in flat.numpy()
        ]
        return torch.from_numpy(np.stack(resized).astype(np.float32))

    def back(self, labels: Tensor) -> Tensor:
        """Labels of the working grid on the grid of the image, by nearest voxel."""
        if self.shape != self.flat:
            batch = labels[None, None].double()
            labels = functional.interpolate(batch, size=self.flat, mode="nearest-exact")[0, 0]
        return labels.long().view(self.source)
