"""Reducers: what a method keeps of a stream. All of them run in the memory of one map.

A reducer sees one *place* - the input, or a tapped layer - of one image, point after point.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class TapBatch:
    """Consecutive points of one image at one place.

    Attributes:
        value: Image or activation at the points, ``(k, C or K, *positions)``.
        gradient: dS/dvalue under the rule of the stream, same shape.
        weights: ``(k,)`` float64.
        start: Value where the line of each point begins, ``(k or 1, ...)``, where asked for.
        end: Value where it ends.
        along: ``(k,)`` positions on one line from start (0) to end (1), ascending.
        redundancy: How often overlapping windows show a position, 1 without windows; gradients
            of the windows add up, so a mean over positions is their sum over distinct ones.
        masks: What was kept of the image at each point, ``(k, 1, *spatial)``, where the sampler
            looks for a mask.
    """

    value: Tensor
    gradient: Tensor
    weights: Tensor
    start: Tensor | None = None
    end: Tensor | None = None
    along: Tensor | None = None
    redundancy: float = 1.0
    masks: Tensor | None = None

    def weighted_sum(self, values: Tensor) -> Tensor:
        """Sum over the points of weight times value."""
        if len(values) == 1 and float(self.weights[0]) == 1.0:
            return values[0]
        total: Tensor = torch.tensordot(self.weights.to(values), values, dims=1)
        return total

    @property
    def difference(self) -> Tensor:
        """End minus start, ``(k or 1, ...)``."""
        if self.start is None or self.end is None:
            raise ValueError("this reducer needs a sampler with ends")
        return self.end - self.start


class Reducer(ABC):
    """Sums up the points of one image at one place.

    Attributes:
        needs_ends: Whether activations at the ends of the lines are read (they cost forwards).
        complete: Whether the sum of the result should be S(end) - S(start).
    """

    needs_ends: ClassVar[bool] = False
    complete: ClassVar[bool] = False

    @abstractmethod
    def update(self, points: TapBatch) -> None:
        """Takes in the next points, in order."""

    @abstractmethod
    def result(self) -> Tensor:
        """The map at this place, ``(C or K, *positions)``."""


class _Sum(Reducer):
    def __init__(self) -> None:
        self._total: Tensor | None = None

    def update(self, points: TapBatch) -> None:
        part = self._of(points)
        self._total = part.clone() if self._total is None else self._total.add_(part)

    def result(self) -> Tensor:
        if self._total is None:
            raise ValueError("no point was seen")
        return self._total

    @abstractmethod
    def _of(self, points: TapBatch) -> Tensor: ...


class MeanGradient(_Sum):
    """Sum of w_i g_i: the gradient of one point, its mean over many."""

    def _of(self, points: TapBatch) -> Tensor:
        return points.weighted_sum(points.gradient)


class TimesValue(_Sum):
    """Sum of w_i u_i g_i: input times gradient, activation times gradient."""

    def _of(self, points: TapBatch) -> Tensor:
        return points.weighted_sum(points.value * points.gradient)


class TimesDifference(_Sum):
    """Sum of w_i (end_i - start_i) g_i: what path and reference methods share."""

    needs_ends = True
    complete = True

    def _of(self, points: TapBatch) -> Tensor:
        difference = points.difference
        if len(difference) == 1:
            return difference[0] * points.weighted_sum(points.gradient)
        return points.weighted_sum(difference * points.gradient)


class MeanValue(_Sum):
    """Sum of w_i u_i: the activation itself."""

    def _of(self, points: TapBatch) -> Tensor:
        return points.weighted_sum(points.value)


class AlongPath(Reducer):
    """Integral of gradient times change of value along the path: conductance.

    The path is cut at the cumulative weights of the quadrature, so that every node lies inside
    its piece and both ends belong to the partition; the value at a cut is interpolated between
    the neighboring nodes. The changes add up to value(end) - value(start) exactly, and where the
    value is linear along the path this is the quadrature rule itself. No pass beyond the nodes
    and the two ends is needed (Dhamdhere et al., 2018).
    """

    needs_ends = True
    complete = True

    def __init__(self) -> None:
        self._total: Tensor | None = None
        self._node: _Node | None = None
        self._cut: Tensor | None = None
        self._end: Tensor | None = None
        self._covered = 0.0

    def update(self, points: TapBatch) -> None:
        """Closes the piece of each node as the next one arrives."""
        if points.start is None or points.end is None or points.along is None:
            raise ValueError("conductance needs a sampler with a path")
        if self._cut is None:
            self._cut, self._end = points.start[0], points.end[0]
        for index, along in enumerate(points.along.tolist()):
            node = _Node(points.value[index], points.gradient[index], along)
            if self._node is not None:
                share = (self._covered - self._node.along) / (along - self._node.along)
                self._close(torch.lerp(self._node.value, node.value, share))
            self._node = node
            self._covered += float(points.weights[index])

    def _close(self, cut: Tensor) -> None:
        if self._node is None or self._cut is None:
            raise ValueError("no point was seen")
        change = cut - self._cut
        if self._total is None:
            self._total = change.mul_(self._node.gradient)
        else:
            self._total.addcmul_(self._node.gradient, change)
        self._cut = cut

    def result(self) -> Tensor:
        """Closes the last piece at the end of the path."""
        if self._end is not None:
            self._close(self._end)
            self._end = None
        if self._total is None:
            raise ValueError("no point was seen")
        return self._total


@dataclass(frozen=True, eq=False)
class _Node:
    value: Tensor
    gradient: Tensor
    along: float


class AlongCurve(Reducer):
    """Integral of gradient times change of value along a curve through the points.

    The changes between consecutive points add up to value(last) - value(first) exactly, whatever
    the curve, so that a linear score is shared out without error.

    Args:
        ahead: Weight of the gradient at the end of each piece: 0.5 is the trapezoid rule, 0 takes
            the gradient before the step, as published adaptive paths do.
    """

    complete = True

    def __init__(self, ahead: float = 0.5) -> None:
        self._ahead = ahead
        self._total: Tensor | None = None
        self._last: tuple[Tensor, Tensor] | None = None

    def update(self, points: TapBatch) -> None:
        """Closes the piece that ends at each point."""
        for value, gradient in zip(points.value, points.gradient, strict=True):
            if self._last is not None:
                before, slope = self._last
                part = (value - before) * torch.lerp(slope, gradient, self._ahead)
                self._total = part if self._total is None else self._total.add_(part)
            self._last = (value.clone(), gradient.clone())

    def result(self) -> Tensor:
        """The sum over all pieces."""
        if self._total is None:
            raise ValueError("a curve needs at least two points")
        return self._total


class LastMasks(Reducer):
    """The masks of the last points, ``(count, *spatial)``: what a search for masks ends with.

    Args:
        count: How many.
    """

    def __init__(self, count: int) -> None:
        self._masks: deque[Tensor] = deque(maxlen=count)

    def update(self, points: TapBatch) -> None:
        """Keeps the masks of these points and lets go of older ones."""
        if points.masks is None:
            raise ValueError("this reducer needs a sampler that looks for masks")
        self._masks.extend(mask[0] for mask in points.masks)

    def result(self) -> Tensor:
        """The masks, in order."""
        return torch.stack(list(self._masks))


def in_float32(values: Tensor) -> Tensor:
    """Half precision is for the network; sums run in float32."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
