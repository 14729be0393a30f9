"""Global sensitivity analysis over regions: Sobol indices and HSIC."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from voxplain.attribution.methods.mask_method import CoalitionMethod
from voxplain.engine.context import Context
from voxplain.engine.masks.quasi_random_designs import PickFreeze, QuasiSwitches
from voxplain.engine.masks.reducers.sensitivity import Dependence, VarianceShare
from voxplain.engine.method import register
from voxplain.engine.requests import MaskRequest
from voxplain.regions import Blocks, Regions, RegionSpec, Supervoxels


class _OverFades(CoalitionMethod):
    """What the two methods have in common that look at how the score varies."""

    positive: ClassVar[bool] = True
    regions: RegionSpec | None = Field(
        default=None, description="absent: blocks of 1/8 in 2-D, 100 supervoxels in 3-D"
    )

    def _regions(self, context: Context) -> Any:
        if self.regions is not None:
            return self.regions
        flat = sum(side > 1 for side in context.shape) <= 2
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

    def requests(self, context: Context) -> tuple[MaskRequest, ...]:
        """Fades of low discrepancy."""
        masks = PickFreeze(self._regions(context), self.samples)
        return (MaskRequest(masks, self.fill, VarianceShare()),)


@register
class HsicAttribution(_OverFades):
    """How closely the score goes with whether a region is there, in any way, not only linearly."""

    formula = "HSIC(z_i, S) = tr(K_i H L H) / n^2"
    reference = "Novello et al., 2022"
    units: ClassVar[str] = "dependence (HSIC, 0 is none)"
    name: Literal["hsic_attribution"] = "hsic_attribution"
    samples: int = Field(default=512, ge=2, description="coalitions; powers of two are balanced")

    def requests(self, context: Context) -> tuple[MaskRequest, ...]:
        """Regions switched with low discrepancy."""
        masks = QuasiSwitches(self._regions(context), self.samples)
        return (MaskRequest(masks, self.fill, Dependence()),)
