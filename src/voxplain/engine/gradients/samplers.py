"""Samplers: the points a gradient stream sends through the network.

A sampler is declared once per method and compared by value, so that methods with equal samplers
share a stream. For one image it gives a :class:`PointSequence`: the points in order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from voxplain.engine.baselines import baseline_image, intensity_range
from voxplain.engine.gradients.quadrature import Quadrature, nodes_and_weights
from voxplain.engine.randomness import generator, standard_normal
from voxplain.engine.stream_io import StreamInput, require_references
from voxplain.engine.taps import Tap

Ends = Literal["none", "shared", "each", "visited"]
RESIDUAL = 0.01
"""The residual of completeness above which finer points follow, where a sequence has them."""


@dataclass(frozen=True, eq=False)
class PointBatch:
    """Consecutive points of one image.

    Attributes:
        inputs: ``(k, C, *spatial)``.
        weights: ``(k,)`` float64; over all points they sum to 1, unless they are relative.
        start: Where the straight lines through the points begin, ``(k or 1, C, *spatial)``.
        end: Where they end.
        along: ``(k,)`` positions on one line from start (0) to end (1), ascending.
        origins: ``(k,)`` numbers of the starts, where each point has a line of its own: equal
            numbers are equal starts.
        masks: What was kept of the image at each point, ``(k, 1, *spatial)`` in [0, 1], for
            samplers that look for a mask.
    """

    inputs: Tensor
    weights: Tensor
    start: Tensor | None = None
    end: Tensor | None = None
    along: Tensor | None = None
    origins: tuple[int, ...] = ()
    masks: Tensor | None = None


@dataclass(frozen=True, eq=False)
class PointSequence:
    """The points of one image, in order.

    Attributes:
        count: Number of points.
        draw: Consecutive points by their numbers. The same numbers give the same points until
            the next feedback.
        feedback: Of an adaptive sequence: called with the scores ``(k,)`` and the gradients at
            the input ``(k, C, *spatial)`` of all points of a round before the next is drawn.
        rounds: Points per round of an adaptive sequence; asked for the next number after the
            feedback on the last one.
        relative_weights: Whether the result is divided by the sum of the weights, as it has to be
            where the number of points shows only on the way. For reducers that are sums.
        finer: Gives the points that follow where the sum of the map is not yet that of the score;
            None where nothing follows.
        restarts: Whether these points take the place of those before; else they add to them.
    """

    count: int
    draw: Callable[[range], PointBatch]
    feedback: Callable[[Tensor, Tensor], None] | None = None
    rounds: Iterable[int] = ()
    relative_weights: bool = False
    finer: Callable[[], PointSequence] | None = None
    restarts: bool = False


class Sampler(ABC):
    """Where gradients are taken; subclasses are frozen dataclasses.

    Attributes:
        ends: ``shared`` for points on one line with a start and an end, ``each`` for a line per
            point, ``visited`` for a curve whose first and last point are its ends, else ``none``.
        interpolated: The layer whose activation moves along the line while the network sees the
            image; None where the image itself moves.
        open_ended: Whether the number of points shows only on the way; ``passes`` is the largest.
    """

    ends: ClassVar[Ends] = "none"
    open_ended: ClassVar[bool] = False
    interpolated: ClassVar[Tap | None] = None

    @abstractmethod
    def route(self, item: StreamInput) -> PointSequence:
        """The points for one image."""

    @property
    @abstractmethod
    def passes(self) -> int:
        """Number of points of one image, with enough references."""

    def passes_with(self, references: int) -> int:
        """Number of points of an image with so many references."""
        return self.passes


@dataclass(frozen=True)
class Original(Sampler):
    """The image itself."""

    @property
    def passes(self) -> int:
        """One."""
        return 1

    def route(self, item: StreamInput) -> PointSequence:
        """The image, with weight 1."""
        return PointSequence(1, lambda _: PointBatch(item.image[None], _equal(1)))


@dataclass(frozen=True)
class StraightPath(Sampler):
    """Points b + a_i (x - b) of a quadrature rule on the line from a baseline."""

    steps: int
    quadrature: Quadrature = "gauss_legendre"
    baseline: Any = "zero"

    ends: ClassVar[Ends] = "shared"

    @property
    def passes(self) -> int:
        """One per step."""
        return self.steps

    def route(self, item: StreamInput) -> PointSequence:
        """The points in ascending order from the baseline to the image."""
        start = baseline_image(self.baseline, item.image)
        difference = item.image - start
        nodes, weights = nodes_and_weights(self.quadrature, self.steps)

        def draw(indices: range) -> PointBatch:
            along = torch.as_tensor(nodes[list(indices)])
            inputs = start + _columns(along.to(difference), difference) * difference
            part = torch.as_tensor(weights[list(indices)])
            return PointBatch(inputs, part, start[None], item.image[None], along)

        return PointSequence(self.steps, draw)


@dataclass(frozen=True)
class RandomPathPoint(Sampler):
    """Points r + a (x' - r): a random reference r, a ~ U(0, 1), x' = x + noise."""

    samples: int
    sigma: float = 0.0

    ends: ClassVar[Ends] = "each"

    @property
    def passes(self) -> int:
        """One per sample."""
        return self.samples

    def route(self, item: StreamInput) -> PointSequence:
        """Independent points, each from its own generator."""
        references = require_references(item)
        scale = self.sigma * intensity_range(item.image) if self.sigma else None

        def draw(indices: range) -> PointBatch:
            starts, ends, inputs, origins = [], [], [], []
            for index in indices:
                source = generator(item.key, "path point", index)
                pick = int(torch.randint(len(references), (), generator=source))
                along = float(torch.rand((), generator=source, dtype=torch.float64))
                end = item.image
                if scale is not None:
                    end = end + scale * standard_normal(end, source)
                origins.append(pick)
                starts.append(references[pick])
                ends.append(end)
                inputs.append(references[pick] + along * (end - references[pick]))
            points, start, end = (torch.stack(part) for part in (inputs, starts, ends))
            weights = _equal(self.samples)[: len(indices)]
            return PointBatch(points, weights, start, end, origins=tuple(origins))

        return PointSequence(self.samples, draw)


@dataclass(frozen=True)
class PairedReference(Sampler):
    """The image, paired with a baseline or with each reference, for rules of two forwards.

    Attributes:
        baseline: The one counterpart; None pairs with every reference.
        references: Upper bound on the references that are used.
    """

    baseline: Any = None
    references: int = 1

    ends: ClassVar[Ends] = "each"

    @property
    def passes(self) -> int:
        """One pair of forwards per counterpart."""
        return self.references

    def passes_with(self, references: int) -> int:
        """No more pairs than there are references."""
        return self.passes if self.baseline is not None else min(self.passes, references)

    def route(self, item: StreamInput) -> PointSequence:
        """The image once per counterpart."""
        if self.baseline is not None:
            counterparts = baseline_image(self.baseline, item.image)[None]
        else:
            counterparts = require_references(item)[: self.references]
        count = len(counterparts)

        def draw(indices: range) -> PointBatch:
            start = counterparts[indices.start : indices.stop]
            inputs = item.image.expand(len(indices), *item.image.shape)
            return PointBatch(inputs, _equal(count)[: len(indices)], start, inputs)

        return PointSequence(count, draw)


def _equal(count: int) -> Tensor:
    return torch.full((count,), 1 / count, dtype=torch.float64)


def _columns(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *(1,) * like.ndim)
