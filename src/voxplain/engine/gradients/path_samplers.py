"""Samplers of curved paths: toward a blurred image, and along what changes least."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from voxplain.engine.baselines import baseline_image
from voxplain.engine.blur import blurred, isotropic_sigma
from voxplain.engine.gradients.samplers import Ends, PointBatch, PointSequence, Sampler
from voxplain.engine.stream_io import StreamInput


@dataclass(frozen=True)
class BlurPath(Sampler):
    """The image under Gaussian blurs, from the strongest to none.

    The widths are those of equal steps of the square root, so that fine detail, which goes first
    and changes most, gets as many points as coarse form.

    Attributes:
        steps: Pieces of the path; there is one point more.
        sigma_max: Strongest blur as a fraction of the shortest axis.
        spacing: Millimeters per voxel, for a blur that is isotropic in mm; None for voxels.
    """

    steps: int
    sigma_max: float = 0.2
    spacing: tuple[float, ...] | None = None

    ends: ClassVar[Ends] = "visited"

    @property
    def passes(self) -> int:
        """One per point, both ends included."""
        return self.steps + 1

    def route(self, item: StreamInput) -> PointSequence:
        """The points from blurred to sharp."""
        image = item.image
        widest = isotropic_sigma(self.sigma_max, image.shape[1:], self.spacing)

        def at(index: int) -> Tensor:
            share = (1 - index / self.steps) ** 2
            return blurred(image, [share * width for width in widest])

        def draw(indices: range) -> PointBatch:
            return PointBatch(
                torch.stack([at(index) for index in indices]), _equal(indices, self.passes)
            )

        return PointSequence(self.passes, draw)


@dataclass(frozen=True)
class GuidedPath(Sampler):
    """A path from a baseline that moves, at each step, the voxels the score reacts to least.

    Attributes:
        steps: Moves; there is one point more.
        fraction: Share of the voxels that differ from the baseline that is moved at a time.
        max_distance: How far a voxel may be ahead of or behind the straight path, as a fraction
            of its length.
        baseline: Where the path begins.
    """

    steps: int
    fraction: float = 0.25
    max_distance: float = 0.02
    baseline: Any = "zero"

    ends: ClassVar[Ends] = "visited"

    @property
    def passes(self) -> int:
        """One per point, both ends included."""
        return self.steps + 1

    def route(self, item: StreamInput) -> PointSequence:
        """One point per round."""
        walk = _Walk(self, item.image)

        def draw(indices: range) -> PointBatch:
            return PointBatch(walk.point()[None], _equal(indices, self.passes))

        return PointSequence(self.passes, draw, walk.on, (1,) * self.passes)


class _Walk:
    """Where a guided path stands: the share of its way that each voxel has covered."""

    def __init__(self, path: GuidedPath, image: Tensor) -> None:
        self._path, self._image = path, image
        self._begin = baseline_image(path.baseline, image)
        self._way = (image - self._begin).abs().double().flatten()
        self._covered = torch.zeros_like(self._way)
        self._moving = int((self._way > 0).sum())
        self._step = 0

    def point(self) -> Tensor:
        """``(C, *spatial)``."""
        if self._step == self._path.steps:
            return self._image
        share = self._covered.view_as(self._image).to(self._image)
        return self._begin + share * (self._image - self._begin)

    def on(self, _: Tensor, gradients: Tensor) -> None:
        """Moves by one step of L1 distance, guided by the gradient at the point."""
        self._step += 1
        if self._step > self._path.steps or not self._moving:
            return
        share = self._step / self._path.steps
        low = max(share - self._path.max_distance, 0.0)
        high = min(share + self._path.max_distance, 1.0)
        self._covered = torch.where(self._way > 0, self._covered.clamp_min(low), 1.0)
        slope = gradients[0].abs().double().flatten()
        wanted = float(self._way.sum()) * (1 - share)
        while self._move(slope, wanted, high):
            pass

    def _move(self, slope: Tensor, wanted: float, high: float) -> bool:
        """Moves the voxels of least slope toward ``high``; whether the step needs more of them."""
        gap = float((self._way * (1 - self._covered)).sum()) - wanted
        waiting = self._covered < high
        count = int(waiting.sum())
        if gap <= 1e-12 * float(self._way.sum()) or not count:
            return False
        chosen = waiting & (slope <= self._threshold(slope[waiting], count))
        reach = float((self._way * (high - self._covered))[chosen].sum())
        part = min(1.0, gap / reach) if reach > 0 else 1.0
        ahead = self._covered + part * (high - self._covered)
        self._covered = torch.where(chosen, ahead if part < 1 else high, self._covered)
        return part == 1.0

    def _threshold(self, slopes: Tensor, count: int) -> Tensor:
        """Slopes that are equal but for rounding go together, however points were batched."""
        rank = max(1, min(count, round(self._path.fraction * self._moving)))
        return slopes.kthvalue(rank).values * (1 + 1e-5)


def _equal(indices: range, count: int) -> Tensor:
    return torch.full((len(indices),), 1 / count, dtype=torch.float64)
