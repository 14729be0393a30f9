"""Shapley values of regions and channels: sampled, exact, and by kernel regression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from torch import Tensor

from voxplain.attribution.methods.base import CoalitionMethod
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
    """The Shapley value of each region, as the mean over random orders in which regions appear."""

    formula = "phi_i = mean over orders of S(P and i) - S(P), P the regions before i"
    reference = "Castro et al., 2009; Strumbelj and Kononenko, 2010"
    name: Literal["shapley_value_sampling"] = "shapley_value_sampling"
    regions: RegionSpec = Supervoxels(count=64)
    samples: int = Field(default=25, ge=1, description="orders; every second one is a reversal")

    def requests(self, context: Context) -> tuple[MaskRequest, ...]:
        return (MaskRequest(Walks(self.regions, self.samples), self.fill, WalkMarginals()),)


@register
class ShapleyExact(CoalitionMethod):
    """The Shapley value of each of a few regions, from all coalitions."""

    formula = "phi_i = sum over S without i of |S|! (M - |S| - 1)! / M! (S(S and i) - S(S))"
    reference = "Shapley, 1953"
    name: Literal["shapley_exact"] = "shapley_exact"
    regions: RegionSpec = Supervoxels(count=8)

    def requests(self, context: Context) -> tuple[MaskRequest, ...]:
        return (MaskRequest(AllCoalitions(self.regions), self.fill, ExactShapley()),)


@register
class ChannelShare(CoalitionMethod):
    """The share of each input channel (each MRI sequence) in the score, by Shapley values.

    Exact for up to 12 channels, sampled from 25 orders beyond.
    """

    formula = "Shapley value of each input channel, on all its voxels"
    reference = "Jin et al., 2022"
    name: Literal["channel_share"] = "channel_share"

    def requests(self, context: Context) -> tuple[MaskRequest, ...]:
        """All coalitions of channels, or random orders of them."""
        regions = Channels()
        if context.expected_regions(regions) <= MAX_EXACT_REGIONS:
            return (MaskRequest(AllCoalitions(regions), self.fill, ExactShapley()),)
        return (MaskRequest(Walks(regions), self.fill, WalkMarginals()),)

    def conclude(
        self, maps: dict[str | None, Tensor], image: Tensor, context: Context
    ) -> MethodOutput:
        """Findings: the share of every channel in percent; magnitudes add up to 100."""
        values = maps[None].flatten(1)[:, 0].double()
        total = float(values.abs().sum())
        shares = [100 * value / total if total else 0.0 for value in values.tolist()]
        names = _channel_names(context, len(shares))
        return MethodOutput(maps, {"share_percent": dict(zip(names, shares, strict=True))})


@register
class KernelShap(CoalitionMethod):
    """The Shapley value of each region, estimated by a weighted linear regression.

    Exact with all coalitions. The values always add up to S(x) - S(all regions filled).
    """

    formula = "argmin_phi sum_z (S(x_z) - S(x_0) - <phi, z>)^2 with sum phi = S(x) - S(x_0)"
    reference = "Lundberg and Lee, 2017"
    name: Literal["kernel_shap"] = "kernel_shap"
    regions: RegionSpec = Supervoxels()
    samples: int | None = Field(
        default=None, ge=2, description="coalitions; absent: 512 and 2 per region"
    )

    def requests(self, context: Context) -> tuple[MaskRequest, ...]:
        """Coalitions drawn under the Shapley kernel, with their complements."""
        masks = ShapleyKernel(self.regions, self.samples)
        return (MaskRequest(masks, self.fill, ShapleyRegression()),)


def _channel_names(context: Context, count: int) -> Sequence[str]:
    if context.image is not None and len(context.image.channels) == count:
        return context.image.channels
    return [f"channel {number}" for number in range(count)]
