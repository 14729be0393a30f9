"""A method for voxplain: where the gradient keeps its sign on the way from a baseline."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from voxplain.engine.baselines import Baseline
from voxplain.engine.context import Context
from voxplain.engine.gradients.reducers import Reducer, TapBatch
from voxplain.engine.gradients.samplers import StraightPath
from voxplain.engine.method import Method, Resampling, register
from voxplain.engine.requests import GradientRequest


class MeanSign(Reducer):
    """Sum of w_i sign(g_i): 1 where every gradient is positive, -1 where every one is negative."""

    def __init__(self) -> None:
        self._total: Tensor | None = None

    def update(self, points: TapBatch) -> None:
        """Takes in the next points ``(k, C, *spatial)``."""
        part = points.weighted_sum(torch.sign(points.gradient))
        self._total = part.clone() if self._total is None else self._total + part

    def result(self) -> Tensor:
        """``(C, *spatial)`` in [-1, 1]."""
        if self._total is None:
            raise ValueError("no point was seen")
        return self._total


@register
class GradientSignAgreement(Method):
    """Whether a voxel speaks for or against the score all the way from a baseline to the image.

    1 or -1 where the gradient never changes its sign, near 0 where it changes back and forth: what
    integrated gradients say there is a difference of large numbers. The path is that of
    integrated gradients, so that both cost no more than one of them.
    """

    formula = "sum_i w_i sign(g(b + a_i (x - b)))"
    reference = "this example"
    units = "agreement, -1 to 1"
    resampling: ClassVar[Resampling] = "value"
    exact_in_windows = False

    name: Literal["gradient_sign_agreement"] = "gradient_sign_agreement"
    steps: int = Field(default=32, ge=1, description="points on the path")
    baseline: Baseline = Field(default="zero", description="where the path starts")

    def requests(self, context: Context) -> tuple[GradientRequest, ...]:
        """The path of integrated gradients, of which the signs are kept."""
        return (GradientRequest(StraightPath(self.steps, baseline=self.baseline), MeanSign),)
