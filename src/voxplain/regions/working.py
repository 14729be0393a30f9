"""The grid on which regions are found: cubic voxels, and the way of labels back."""

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
    """The axes of more than one voxel; two at least, as a picture has.

    What is done on these alone gives a volume of one slice the regions of the slice.
    """
    by_length = sorted(range(len(shape)), key=lambda axis: shape[axis] == 1)
    several = sum(length > 1 for length in shape)
    return sorted(by_length[: max(2, several)])


@dataclass(frozen=True)
class WorkingGrid:
    """Voxels of equal sides over the thick axes of an image.

    Attributes:
        source: Spatial shape of the image.
        flat: The same without axes of one voxel.
        shape: Voxels along these axes on the working grid.
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
            spacing: Millimeters per voxel, or None where they are equal.
            voxels: About how many the grid has; as many as the image if None.
            nearly: Voxels whose longest side is at most so many times the shortest are taken for
                cubic, where a grid of their own would only blur.
        """
        kept = thick_axes(shape)
        flat = [shape[axis] for axis in kept]
        steps = [1.0 if spacing is None else float(spacing[axis]) for axis in kept]
        if max(steps) <= nearly * min(steps):
            steps = [1.0] * len(steps)
        sides = [length * step for length, step in zip(flat, steps, strict=True)]
        edge = (math.prod(sides) / (voxels or math.prod(flat))) ** (1 / len(sides))
        working = tuple(max(1, round(side / edge)) for side in sides)
        return cls(tuple(shape), tuple(flat), working)

    def flatten(self, image: Tensor) -> Tensor:
        """``(C, *spatial)`` without axes of one voxel."""
        return image.reshape(len(image), *self.flat)

    def bring(self, image: Tensor, order: int = 1) -> Tensor:
        """``(C, *spatial)`` on the working grid, smoothed where it is coarser.

        Args:
            image: Floating point, on the CPU.
            order: Of the spline between voxels.
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
        """Labels of the working grid on the image, by nearest voxel."""
        if self.shape != self.flat:
            shown = labels[None, None].double()
            labels = functional.interpolate(shown, size=self.flat, mode="nearest-exact")[0, 0]
        return labels.long().view(self.source)
