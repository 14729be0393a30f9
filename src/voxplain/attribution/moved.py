"""Activations that move: one layer on its way between two images, the rest sees the second."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from voxplain.attribution.taps import Changes, Tap, tapping


@dataclass(frozen=True, eq=False)
class Moved:
    """A(b) + a (A(x) - A(b)) in place of the activation A(x) of a layer.

    Attributes:
        tap: The layer.
        start: The images b, ``(k or 1, C, *spatial)``.
        along: The positions a, ``(k,)``.
    """

    tap: Tap
    start: Tensor
    along: Tensor

    def point(self, index: int) -> Moved:
        """The same for one of the points."""
        start = self.start[index : index + 1] if len(self.start) > 1 else self.start
        return replace(self, start=start, along=self.along[index : index + 1])

    def twice(self) -> Moved:
        """The same for points that are given twice."""
        start = torch.cat([self.start] * 2) if len(self.start) > 1 else self.start
        return replace(self, start=start, along=torch.cat([self.along] * 2))

    def changes(
        self, network: nn.Module, call: Callable[[Tensor], Tensor], start: Tensor
    ) -> Changes:
        """What to put in place at the layer, after one look at what it gives for the start.

        A layer that is called more than once moves at its last call, as taps catch it.

        Args:
            network: To be tapped.
            call: Runs it.
            start: The images b, or their windows.
        """
        with torch.no_grad(), tapping(network, (self.tap,)) as tapped:
            call(start)
        base, last = tapped[self.tap], tapped.calls(self.tap) - 1
        numbers = itertools.count()

        def change(value: Tensor) -> Tensor:
            if self.tap.call == -1 and next(numbers) < last:
                return value
            begin = base.repeat(len(value) // len(base), *(1,) * (base.ndim - 1))
            along = self.along.to(value).repeat_interleave(len(value) // len(self.along))
            return begin + along.view(-1, *(1,) * (value.ndim - 1)) * (value - begin)

        return {self.tap: change}
