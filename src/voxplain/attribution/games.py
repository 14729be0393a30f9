"""Games between regions: who earned the score, and whose changes move it."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from voxplain.attribution.mask_method import CoalitionMethod
from voxplain.attribution.masking import MaskRequest
from voxplain.attribution.masking.designs import MOST_EXACT, AllCoalitions, Walks
from voxplain.attribution.masking.fades import PickFreeze, QuasiSwitches
from voxplain.attribution.masking.shapley import ExactShapley, WalkMarginals
from voxplain.attribution.masking.variance import Dependence, VarianceShare
from voxplain.attribution.method import Conclusion, register
from voxplain.attribution.scene import Scene
from voxplain.regions import Blocks, Channels, Regions, RegionSpec, Supervoxels


@register
class ShapleyValueSampling(CoalitionMethod):
    """What each region adds to the score on average, over random orders in which regions appear."""

    formula = "phi_i = mean over walks of S(P and i) - S(P), P what came before i"
    reference = "Castro et al., 2009; Strumbelj and Kononenko, 2010"
    name: Literal["shapley_value_sampling"] = "shapley_value_sampling"
    regions: RegionSpec = Supervoxels(count=64)
    samples: int = Field(default=25, ge=1, description="walks; every second one is a reversal")

    def requests(self, scene: Scene) -> tuple[MaskRequest, ...]:
        """Walks from nothing to the image."""
        return (MaskRequest(Walks(self.regions, self.samples), self.fill, WalkMarginals()),)


@register
class ShapleyExact(CoalitionMethod):
    """What each of a few regions adds to the score, averaged over all orders of appearing."""

    formula = "phi_i = sum over S without i of |S|! (M - |S| - 1)! / M! (S(S and i) - S(S))"
    reference = "Shapley, 1953"
    name: Literal["shapley_exact"] = "shapley_exact"
    regions: RegionSpec = Supervoxels(count=8)

    def requests(self, scene: Scene) -> tuple[MaskRequest, ...]:
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

    def requests(self, scene: Scene) -> tuple[MaskRequest, ...]:
        """All coalitions of channels, or walks over them."""
        regions = Channels()
        if scene.expected_regions(regions) <= MOST_EXACT:
            return (MaskRequest(AllCoalitions(regions), self.fill, ExactShapley()),)
        return (MaskRequest(Walks(regions), self.fill, WalkMarginals()),)

    def conclude(self, maps: dict[str | None, Tensor], image: Tensor, scene: Scene) -> Conclusion:
        """The share of every channel in percent; magnitudes add up to 100."""
        values = maps[None].flatten(1)[:, 0].double()
        whole = float(values.abs().sum())
        shares = [100 * value / whole if whole else 0.0 for value in values.tolist()]
        return Conclusion(maps, {"share_percent": dict(zip(_names(scene, shares), shares))})  # noqa: B905


def _names(scene: Scene, shares: list[float]) -> list[str]:
    known = scene.image.channels if scene.image is not None else ()
    if len(known) == len(shares):
        return list(known)
    return [f"channel {number}" for number in range(len(shares))]


class _OverFades(CoalitionMethod):
    """What the two methods have in common that look at how the score varies."""

    positive: ClassVar[bool] = True
    regions: RegionSpec | None = Field(
        default=None, description="absent: blocks of 1/8 in 2-D, 100 supervoxels in 3-D"
    )

    def _regions(self, scene: Scene) -> Any:
        if self.regions is not None:
            return self.regions
        flat = sum(side > 1 for side in scene.shape) <= 2
        chosen: Regions = Blocks(size=0.125) if flat else Supervoxels()
        return chosen


@register
class SobolAttribution(_OverFades):
    """The share of the ups and downs of the score that vanishes if a region is held still.

    Regions fade independently; the share counts what a region does alone and together with
    others, so that the shares of all regions may add up to more than 1.
    """

    formula = "S_Ti = E[(S(A) - S(A with column i of B))^2] / (2 Var S)"
    reference = "Fel et al., 2021; Jansen, 1999"
    units: ClassVar[str] = "share of the variance of the score"
    name: Literal["sobol_attribution"] = "sobol_attribution"
    samples: int = Field(default=32, ge=2, description="rows of A; times regions + 2 passes")

    def requests(self, scene: Scene) -> tuple[MaskRequest, ...]:
        """Fades of low discrepancy."""
        masks = PickFreeze(self._regions(scene), self.samples)
        return (MaskRequest(masks, self.fill, VarianceShare()),)


@register
class HsicAttribution(_OverFades):
    """How closely the score goes with whether a region is there, in any way, not only linearly."""

    formula = "HSIC(z_i, S) = tr(K_i H L H) / n^2"
    reference = "Novello et al., 2022"
    units: ClassVar[str] = "dependence (HSIC, 0 is none)"
    name: Literal["hsic_attribution"] = "hsic_attribution"
    samples: int = Field(default=512, ge=2, description="coalitions; powers of two are balanced")

    def requests(self, scene: Scene) -> tuple[MaskRequest, ...]:
        """Regions switched with low discrepancy."""
        masks = QuasiSwitches(self._regions(scene), self.samples)
        return (MaskRequest(masks, self.fill, Dependence()),)
