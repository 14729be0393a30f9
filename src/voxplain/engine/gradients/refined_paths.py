"""Samplers of paths in a layer, and of paths with steps that add themselves (``steps: auto``)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from voxplain.engine.baselines import baseline_image
from voxplain.engine.gradients.path_samplers import BlurPath, GuidedPath
from voxplain.engine.gradients.samplers import (
    Ends,
    PointBatch,
    PointSequence,
    Sampler,
    StraightPath,
)
from voxplain.engine.stream_io import StreamInput
from voxplain.engine.taps import Tap

FIRST, MOST = 16, 1024
"""Pieces of the path that ``steps: auto`` begins with, and that it ends with at the latest."""


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
            return _at_image(straight.draw(indices), item.image)

        return PointSequence(straight.count, draw)


@dataclass(frozen=True)
class RefinedPath(Sampler):
    """The straight path under the trapezoid rule, with pieces halved until the sum is complete.

    Points that are there stay: halving adds the middles of all pieces.

    Attributes:
        baseline: Where the path begins.
        first: Pieces to begin with.
        most: Pieces to end with at the latest.
    """

    baseline: Any = "zero"
    first: int = FIRST
    most: int = MOST

    ends: ClassVar[Ends] = "shared"
    open_ended: ClassVar[bool] = True

    @property
    def passes(self) -> int:
        """At most one per piece, and one more."""
        return self.most + 1

    def route(self, item: StreamInput) -> PointSequence:
        """The points of the coarsest rule, in ascending order; those of finer ones follow."""
        along = torch.arange(self.first + 1, dtype=torch.float64) / self.first
        weights = torch.ones_like(along)
        weights[[0, -1]] = 0.5
        return self._points(item, along, weights, self.first)

    def _middles(self, item: StreamInput, pieces: int) -> PointSequence:
        """The middles of the pieces so far."""
        along = (torch.arange(pieces, dtype=torch.float64) + 0.5) / pieces
        return self._points(item, along, torch.ones_like(along), 2 * pieces)

    def _points(
        self, item: StreamInput, along: Tensor, weights: Tensor, pieces: int
    ) -> PointSequence:
        start = baseline_image(self.baseline, item.image)

        def draw(indices: range) -> PointBatch:
            part = slice(indices.start, indices.stop)
            share = along[part].to(item.image).view(-1, *(1,) * item.image.ndim)
            inputs = start + share * (item.image - start)
            batch = PointBatch(inputs, weights[part], start[None], item.image[None], along[part])
            return self._shown(batch, item.image)

        def finer() -> PointSequence:
            return self._middles(item, pieces)

        return PointSequence(
            len(along), draw, relative_weights=True, finer=finer if pieces < self.most else None
        )

    def _shown(self, points: PointBatch, image: Tensor) -> PointBatch:
        """What the network sees of them."""
        return points


@dataclass(frozen=True)
class RefinedLayerPath(RefinedPath):
    """The same path in the activations of one layer, while the rest sees the image."""

    layer: Tap = Tap("", "input")  # noqa: RUF009

    @property
    def interpolated(self) -> Tap:  # type: ignore[override]
        """The layer."""
        return self.layer

    def _shown(self, points: PointBatch, image: Tensor) -> PointBatch:
        return _at_image(points, image)


@dataclass(frozen=True)
class DoubledPath(Sampler):
    """A path that runs again with twice the steps until the sum of the map is complete.

    For sums in which a point counts with its neighbors, and for paths whose points depend on their
    number. The map is that of the last number of steps.

    Attributes:
        path: With the steps to begin with.
        places: Whose sums decide: a path is as fine as the worst of them needs.
        most: Steps to end with at the latest.
    """

    path: StraightPath | BlurPath | GuidedPath
    places: tuple[Tap, ...]
    most: int = MOST

    open_ended: ClassVar[bool] = True

    @property
    def ends(self) -> Ends:  # type: ignore[override]
        """Those of the path."""
        return self.path.ends

    @property
    def passes(self) -> int:
        """At most the sum over all numbers of steps."""
        return sum(path.passes for path in self._paths())

    def route(self, item: StreamInput) -> PointSequence:
        """The points of the first number of steps; those of twice as many follow."""
        return self._sequence(self._paths(), item)

    def _paths(self) -> list[StraightPath | BlurPath | GuidedPath]:
        paths = [self.path]
        while paths[-1].steps < self.most:
            paths.append(replace(paths[-1], steps=2 * paths[-1].steps))
        return paths

    def _sequence(
        self, paths: list[StraightPath | BlurPath | GuidedPath], item: StreamInput
    ) -> PointSequence:
        first, *finer = paths
        points = first.route(item)
        follow = (lambda: self._sequence(finer, item)) if finer else None
        return replace(points, finer=follow, restarts=first is not self.path)


def _at_image(points: PointBatch, image: Tensor) -> PointBatch:
    """The same positions, at which the network sees the image."""
    return replace(points, inputs=image.expand(len(points.inputs), *image.shape))
