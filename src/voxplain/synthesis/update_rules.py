"""How the parameters of synthesized images follow their gradients."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from voxplain.synthesis.parametrizations import Canvas
from voxplain.synthesis.surface import Surface


class UpdateRule(ABC):
    """How parameters follow their gradients, uphill."""

    @abstractmethod
    def begin(self, canvas: Canvas, surface: Surface, pace: float) -> Callable[[float], None]:
        """A function that takes one step along the gradients, given the share of steps done."""


@dataclass(frozen=True)
class AdamUpdate(UpdateRule):
    """Adam with its states per number, so that images do not influence each other.

    Attributes:
        rate: Size of a step.
        decays: Whether steps shrink to 0 along half a cosine.
    """

    rate: float = 0.05
    decays: bool = False

    def begin(self, canvas: Canvas, surface: Surface, pace: float) -> Callable[[float], None]:
        rate = self.rate * pace
        adam = torch.optim.Adam(canvas.parameters, lr=rate)

        def step(progress: float) -> None:
            if self.decays:
                adam.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * progress)) / 2
            adam.step()

        return step


@dataclass(frozen=True, eq=False)
class NormalizedUpdate(UpdateRule):
    """Free voxels follow the gradient divided by its mean absolute value, as in DeepDream.

    The mean is over voxels that may change: what the network sees in the background, often most at
    the edge of the body, does not make steps inside it smaller or larger.

    Attributes:
        rate: Mean step, in intensity ranges.
        limits: Lowest and highest intensity of every voxel, ``(B, C, *spatial)``.
    """

    rate: float
    limits: tuple[Tensor, Tensor]

    def begin(self, canvas: Canvas, surface: Surface, pace: float) -> Callable[[float], None]:
        spans = surface.per_channel(surface.statistics.range)
        lowest, highest = (limit / spans for limit in self.limits)
        free = (lowest < highest).to(lowest.dtype)
        count = free.flatten(1).sum(dim=1).clamp_min(1)

        def step(_: float) -> None:
            for voxels in canvas.parameters:
                assert voxels.grad is not None
                uphill = -voxels.grad * free
                size = uphill.abs().flatten(1).sum(dim=1) / count
                size = size.view(-1, *(1,) * (voxels.ndim - 1))
                with torch.no_grad():
                    voxels += self.rate * pace * uphill / size.clamp_min(1e-30)
                    voxels.clamp_(lowest, highest)

        return step
