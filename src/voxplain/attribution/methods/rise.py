"""RISE and MC-RISE: mean scores under smooth random grids."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from voxplain.attribution.methods.base import MaskMethod
from voxplain.engine.context import Context
from voxplain.engine.masks import AnyFill, Constant, Fill, Mean, RandomGrids, WeightedMean
from voxplain.engine.method import MapProperties, register
from voxplain.engine.requests import MaskRequest
from voxplain.engine.stream_io import StreamResults
from voxplain.engine.taps import INPUT


class _RandomGridMethod(MaskMethod):
    """The mean score over random masks, per voxel.

    Attributes:
        samples: Number of masks.
        cells: Of the grid, along the shortest axis.
        keep: Probability that a cell is kept.
    """

    samples: int | None = Field(default=None, ge=1, description="absent: 2000 in 3-D, 4000 in 2-D")
    cells: int = Field(default=7, ge=1)
    keep: float = Field(default=0.5, gt=0, lt=1)

    def _request(self, fill: Fill, context: Context, about: str = "") -> MaskRequest:
        samples = self.samples or (2000 if len(context.shape) > 2 else 4000)
        grids = RandomGrids(samples, self.cells, self.keep)
        return MaskRequest(grids, fill, WeightedMean(about))


@register
class Rise(_RandomGridMethod):
    """The mean score over the random masks that keep a voxel, minus the mean over all masks."""

    formula = "sum_j (S(x_mj) - mean S) m_j / sum_j m_j over random smooth masks"
    reference = "Petsiuk et al., 2018"
    name: Literal["rise"] = "rise"
    fill: AnyFill = Constant()

    def requests(self, context: Context) -> tuple[MaskRequest, ...]:
        return (self._request(self.fill, context),)


@register
class McRise(_RandomGridMethod):
    """RISE with several fills: hiding each voxel by dark, by average and by bright intensity."""

    formula = "one RISE map per value that hides what is not shown, along the channel axis"
    reference = "Hatakeyama et al., 2020"
    name: Literal["mc_rise"] = "mc_rise"
    fills: tuple[AnyFill, ...] = Field(
        default=(Constant(value="minimum"), Mean(), Constant(value="maximum")), min_length=1
    )

    def requests(self, context: Context) -> tuple[MaskRequest, ...]:
        """The same random grids with every fill."""
        pairs = zip(self.fills, self._names, strict=True)
        return tuple(self._request(fill, context, name) for fill, name in pairs)

    def maps(self, results: StreamResults, context: Context) -> dict[str | None, Tensor]:
        """One channel per fill."""
        return {None: torch.cat([stream[INPUT] for stream in results])}

    def properties(self) -> MapProperties:
        """The channels of the map are the fills."""
        return replace(super().properties(), channel_names=self._names)

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(f"hidden by {fill.description}" for fill in self.fills)
