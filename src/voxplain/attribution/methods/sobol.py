"""Sobol indices and HSIC: global sensitivity of the score to regions."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from voxplain.attribution.methods.base import CoalitionMethod
from voxplain.engine.context import Context
from voxplain.engine.masks.quasi_random_designs import PickFreeze, QuasiSwitches
from voxplain.engine.masks.reducers.sensitivity import Dependence, VarianceShare
from voxplain.engine.method import register
from voxplain.engine.requests import MaskRequest
from voxplain.regions import Blocks, RegionSpec, Supervoxels


class _SensitivityMethod(CoalitionMethod):
    """A statistic of how the score varies with each region."""

    positive = True
    regions: RegionSpec | None = Field(
        default=None, description="absent: blocks of 1/8 in 2-D, 100 supervoxels in 3-D"
    )

    def _regions(self, context: Context) -> RegionSpec:
        if self.regions is not None:
            return self.regions
        is_flat = sum(side > 1 for side in context.shape) <= 2
        regions: RegionSpec = Blocks(size=0.125) if is_flat else Supervoxels()
        return regions


@register
class SobolAttribution(_SensitivityMethod):
    """The total Sobol index of each region: its share in the variance of the score.

    Regions fade independently. The index counts what a region does alone and together with others,
    so that the indices of all regions may add up to more than 1.
    """

    formula = "S_Ti = E[(S(A) - S(A with column i of B))^2] / (2 Var S)"
    reference = "Fel et al., 2021; Jansen, 1999"
    units = "share of the variance of the score"
    name: Literal["sobol_attribution"] = "sobol_attribution"
    samples: int = Field(default=32, ge=2, description="rows of A; times regions + 2 passes")

    def requests(self, context: Context) -> tuple[MaskRequest, ...]:
        masks = PickFreeze(self._regions(context), self.samples)
        return (MaskRequest(masks, self.fill, VarianceShare()),)


@register
class HsicAttribution(_SensitivityMethod):
    """The dependence of the score on the presence of each region, nonlinear ones included."""

    formula = "HSIC(z_i, S) = tr(K_i H L H) / n^2"
    reference = "Novello et al., 2022"
    units = "dependence (HSIC, 0 is none)"
    name: Literal["hsic_attribution"] = "hsic_attribution"
    samples: int = Field(default=512, ge=2, description="coalitions; powers of two are balanced")

    def requests(self, context: Context) -> tuple[MaskRequest, ...]:
        masks = QuasiSwitches(self._regions(context), self.samples)
        return (MaskRequest(masks, self.fill, Dependence()),)
