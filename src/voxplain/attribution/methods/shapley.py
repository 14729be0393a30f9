"""Shapley values of regions: sampled, exact, and by kernel regression."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from voxplain.attribution.methods.mask_method import CoalitionMethod
from voxplain.engine.context import Context
from voxplain.engine.masks.coalition_designs import (
    MAX_EXACT_REGIONS,
    AllCoalitions,
    ShapleyKernel,
    Walks,
)
from voxplain.engine.masks.reducers.shapley import ExactShapley, WalkMarginals
from voxplain.engine.masks.reducers.surrogates import ShapleyRegression
from voxplain.engine.method import register
from voxplain.engine.requests import MaskRequest
from voxplain.engine.stream_io import MethodOutput
from voxplain.regions import Channels, RegionSpec, Supervoxels


@register
class ShapleyValueSampling(CoalitionMethod):
    """What each region adds to the score on average, over random orders in which regions appear."""

    formula = "phi_i = mean over walks of S(P and i) - S(P), P what came before i"
    reference = "Castro et al., 2009; Strumbelj and Kononenko, 2010"
    name: Literal["shapley_value_sampling"] = "shapley_value_sampling"
    regions: RegionSpec = Supervoxels(count=64)
    samples: int = Field(default=25, ge=1, description="walks; every second one is a reversal")

    def requests(self, context: Context) -> tuple[MaskRequest, ...]:
        """Walks from nothing to the image."""
        return (MaskRequest(Walks(self.regions, self.samples), self.fill, WalkMarginals()),)


@register
class ShapleyExact(CoalitionMethod):
    """What each of a few regions adds to the score, averaged over all orders of appearing."""

    formula = "phi_i = sum over S without i of |S|! (M - |S| - 1)! / M! (S(S and i) - S(S))"
    reference = "Shapley, 1953"
    name: Literal["shapley_exact"] = "shapley_exact"
    regions: RegionSpec = Supervoxels(count=8)

    def requests(self, context: Context) -> tuple[MaskRequest, ...]:
        """All coalitions."""
        return (MaskRequest(AllCoalitions(self.regions), self.fill, ExactShapley()),)


@register
class ChannelShare(CoalitionMethod):
    """Which input channel (which MRI sequence) earned how much of the score.

    Shapley values of the channels: exact for up to 12 of them, by 25 walks beyond.
    """

    formula = "Shapley value of each input channel, on all its voxels"
    reference = "Jin et al., 2022"
    name: Literal["channel_share"] = "channel_share"

    def requests(self, context: Context) -> tuple[MaskRequest, ...]:
        """All coalitions of channels, or walks over them."""
        regions = Channels()
        if context.expected_regions(regions) <= MAX_EXACT_REGIONS:
            return (MaskRequest(AllCoalitions(regions), self.fill, ExactShapley()),)
        return (MaskRequest(Walks(regions), self.fill, WalkMarginals()),)

    def conclude(
        self, maps: dict[str | None, Tensor], image: Tensor, context: Context
    ) -> MethodOutput:
        """The share of every channel in percent; magnitudes add up to 100."""
        values = maps[None].flatten(1)[:, 0].double()
        whole = float(values.abs().sum())
        shares = [100 * value / whole if whole else 0.0 for value in values.tolist()]
        return MethodOutput(maps, {"share_percent": dict(zip(_names(context, shares), shares))})  # noqa: B905


def _names(context: Context, shares: list[float]) -> list[str]:
    known = context.image.channels if context.image is not None else ()
    if len(known) == len(shares):
        return list(known)
    return [f"channel {number}" for number in range(len(shares))]


@register
class KernelShap(CoalitionMethod):
    """How the score is shared out between regions, by the fairest linear model of it.

    With all coalitions these are the Shapley values; the sum is S(x) - S(all filled) always.
    """

    formula = "argmin_phi sum_z (S(x_z) - S(x_0) - <phi, z>)^2 with sum phi = S(x) - S(x_0)"
    reference = "Lundberg and Lee, 2017"
    name: Literal["kernel_shap"] = "kernel_shap"
    regions: RegionSpec = Supervoxels()
    samples: int | None = Field(
        default=None, ge=2, description="coalitions; absent: 512 and 2 per region"
    )

    def requests(self, context: Context) -> tuple[MaskRequest, ...]:
        """Coalitions under the Shapley kernel, with their complements."""
        masks = ShapleyKernel(self.regions, self.samples)
        return (MaskRequest(masks, self.fill, ShapleyRegression()),)
