"""Samplers of curved paths: toward a blurred image, along what changes least, inside a layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from voxplain.engine.baselines import baseline_image
from voxplain.engine.blur import blurred, isotropic_sigma
from voxplain.engine.gradients.samplers import (
    Ends,
    PointBatch,
    PointSequence,
    Sampler,
    StraightPath,
)
from voxplain.engine.stream_io import StreamInput
from voxplain.engine.taps import Tap


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
class RefinedPath(Sampler):
    """The straight path under the trapezoid rule, with pieces halved until the sum is complete.

    Points that are there stay: halving adds the middles of all pieces.

    Attributes:
        baseline: Where the path begins.
        residual: Of completeness, below which the path is fine enough.
        first: Pieces to begin with.
        most: Pieces to end with at the latest.
    """

    baseline: Any = "zero"
    residual: float = 0.01
    first: int = 16
    most: int = 1024

    ends: ClassVar[Ends] = "shared"
    open_ended: ClassVar[bool] = True

    @property
    def passes(self) -> int:
        """At most one per piece, and one more."""
        return self.most + 1

    def route(self, item: StreamInput) -> PointSequence:
        """The points of one refinement after the other, each in ascending order."""
        refinement = _Refinement(self, item.image)
        return PointSequence(
            self.passes,
            refinement.draw,
            refinement.on,
            refinement.rounds(),
            relative_weights=True,
        )


class _Refinement:
    """The points of a refined path so far, and the sum that they give."""

    def __init__(self, path: RefinedPath, image: Tensor) -> None:
        self._path, self._image = path, image
        self._begin = baseline_image(path.baseline, image)
        self._way = (image - self._begin).double()
        self._nodes: list[tuple[float, float]] = []
        self._answered, self._sum, self._difference = 0, 0.0, 0.0

    def rounds(self) -> Iterator[int]:
        """Numbers of points, until the sum is complete or the path as fine as it may get."""
        pieces = self._path.first
        ends = {0: 0.5, pieces: 0.5}
        self._nodes = [(index / pieces, ends.get(index, 1.0)) for index in range(pieces + 1)]
        yield pieces + 1
        while pieces < self._path.most and not self._is_complete():
            self._nodes += [((index + 0.5) / pieces, 1.0) for index in range(pieces)]
            yield pieces
            pieces *= 2

    def draw(self, indices: range) -> PointBatch:
        """Points by their numbers."""
        along, weights = torch.tensor(
            [self._nodes[index] for index in indices], dtype=torch.float64
        ).unbind(1)
        share = along.to(self._image).view(-1, *(1,) * self._image.ndim)
        inputs = self._begin + share * (self._image - self._begin)
        return PointBatch(inputs, weights, self._begin[None], self._image[None], along)

    def on(self, scores: Tensor, gradients: Tensor) -> None:
        """Adds the gradients of a round."""
        if not self._answered:
            self._difference = float(scores[-1]) - float(scores[0])
        answered = self._answered + len(gradients)
        for (_, weight), gradient in zip(
            self._nodes[self._answered : answered], gradients, strict=True
        ):
            self._sum += weight * float((gradient.double() * self._way).sum())
        self._answered = answered

    def _is_complete(self) -> bool:
        total = self._sum / sum(weight for _, weight in self._nodes)
        return abs(total - self._difference) <= self._path.residual * abs(self._difference)


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


@dataclass(frozen=True)
class LayerPath(StraightPath):
    """The straight path in the activations of one layer, while the rest sees the image."""

    layer: Tap = Tap("", "input")  # noqa: RUF009

    @property
    def interpolated(self) -> Tap:  # type: ignore[override]
        """The layer."""
        return self.layer

    def route(self, item: StreamInput) -> PointSequence:
        """The image at every point; the positions say how far the layer has come."""
        straight = super().route(item)

        def draw(indices: range) -> PointBatch:
            found = straight.draw(indices)
            inputs = item.image.expand(len(indices), *item.image.shape)
            return PointBatch(inputs, found.weights, found.start, found.end, found.along)

        return PointSequence(straight.count, draw)


def _equal(indices: range, count: int) -> Tensor:
    return torch.full((len(indices),), 1 / count, dtype=torch.float64)
