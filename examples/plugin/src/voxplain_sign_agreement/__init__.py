"""A method for voxplain: where the gradient keeps its sign on the way from a baseline."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from voxplain.attribution import (
    Baseline,
    Context,
    GradientRequest,
    Method,
    Reducer,
    StraightPath,
    TapBatch,
    register,
)


class MeanSign(Reducer):
    """Sum of w_i sign(g_i): 1 where every gradient is positive, -1 where every one is negative."""

    def __init__(self) -> None:
        self._total: Tensor | None = None

    def update(self, points: TapBatch) -> None:
        """Adds the signs at the next points ``(k, C, *spatial)``."""
        total = points.weighted_sum(torch.sign(points.gradient))
        self._total = total if self._total is None else self._total + total

    def result(self) -> Tensor:
        """``(C, *spatial)`` in [-1, 1]."""
        if self._total is None:
            raise ValueError("no point was seen")
        return self._total


@register
class GradientSignAgreement(Method):
    """How consistent the sign of the gradient is on the path from a baseline to the image.

    1 or -1 where the gradient never changes its sign, near 0 where it changes back and forth, so
    that integrated gradients are a difference of large numbers there. The path is that of
    integrated gradients, so that both cost no more than one of them.
    """

    formula = "sum_i w_i sign(g(b + a_i (x - b)))"
    reference = "this example"
    units = "agreement, -1 to 1"
    resampling = "value"
    exact_in_windows = False

    name: Literal["gradient_sign_agreement"] = "gradient_sign_agreement"
    steps: int = Field(default=32, ge=1, description="points on the path")
    baseline: Baseline = Field(default="zero", description="where the path starts")

    def requests(self, context: Context) -> tuple[GradientRequest, ...]:
        """The path of integrated gradients, of which the mean sign is kept."""
        return (GradientRequest(StraightPath(self.steps, baseline=self.baseline), MeanSign),)
