"""XRAI: any map, averaged over segments of the image that are ranked by their mean."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, SerializeAsAny, field_validator
from torch import Tensor

from voxplain.attribution.methods.base import Wrapper
from voxplain.attribution.methods.integrated_gradients import IntegratedGradientsBlackWhite
from voxplain.engine.context import Context
from voxplain.engine.method import MapProperties, Method, register
from voxplain.engine.stream_io import MethodOutput
from voxplain.errors import ConfigError
from voxplain.regions import Segments, scales

Mode = Literal["full", "fast"]

_LISTED = 100
"""Regions in the findings of a map."""


@register
class Xrai(Wrapper):
    """The regions of the image in the order of their mean attribution, by any other method.

    Candidates are all segments of six scales, computed on the image without noise. The largest
    value over the channels counts; take absolute values of the inner map where its sign should not
    count.

    Attributes:
        of: The method whose map is averaged.
        mode: ``full`` ranks by the voxels that a segment adds, ``fast`` by whole segments.
        minimum: Smallest part of the image that a segment must add.
        segments: ``(n, *spatial)`` instead of the six scales: boolean masks, or label maps.
    """

    family = "region"
    formula = "on each segment the mean of M over the voxels that it adds, largest mean first"
    reference = "Kapishnikov et al., 2019"
    units = "mean of the inner map per voxel"
    name: Literal["xrai"] = "xrai"
    of: SerializeAsAny[Method] = Field(
        default=IntegratedGradientsBlackWhite(), description="the method whose map is averaged"
    )
    mode: Mode = "full"
    minimum: float = Field(
        default=0.001, gt=0, lt=1, description="smallest part of the image that a segment must add"
    )
    segments: Any = Field(
        default=None, description="masks or label maps (n, *spatial); absent: six scales"
    )

    @field_validator("of")
    @classmethod
    def _on_the_image(cls, value: Method) -> Method:
        if value.properties().grid == "layer":
            raise ValueError(f"{value.key} is a map of a layer; take one of the image, as CAMs are")
        return value

    @property
    def key(self) -> str:
        """The label, or the name with that of the inner method where it is not the default."""
        inner = "" if self.of == IntegratedGradientsBlackWhite() else f"_{self.of.key}"
        return self.label or f"{self.name}{inner}"

    def properties(self) -> MapProperties:
        """Means of regions, which keep no sum."""
        inner = super().properties()
        return replace(inner, units=self.units, resampling="value", complete=False)

    def conclude(
        self, maps: dict[str | None, Tensor], image: Tensor, context: Context
    ) -> MethodOutput:
        """The regions of the inner map, and the first of them as findings."""
        inner = self.of.conclude(maps, image, context)
        if set(inner.maps) != {None}:
            raise ConfigError(f"xrai needs one map of the image, and {self.of.key} gives others")
        ranked = self.ranked(self.of.finish(inner.maps[None]), image, context.spacing)
        findings = {**inner.findings, "regions": ranked.listed(_LISTED)}
        return MethodOutput({None: ranked.map[None].to(image)}, findings)

    def ranked(
        self, values: Tensor, image: Tensor, spacing: tuple[float, ...] | None
    ) -> RankedRegions:
        """The regions of a map ``(C, *spatial)`` of an image, in their order.

        Raises:
            ConfigError: If the given segments do not lie on the image.
        """
        segments = self._candidates(image, spacing)
        largest = values.detach().amax(dim=0)
        return rank_segments(largest, segments, round(self.minimum * largest.numel()), self.mode)

    def _candidates(self, image: Tensor, spacing: tuple[float, ...] | None) -> Segments:
        if self.segments is None:
            return scales(image, spacing)
        given = Segments.given(self.segments)
        if given.cells.shape != image.shape[1:]:
            raise ConfigError(
                f"segments of shape {tuple(given.cells.shape)} do not lie on an image of shape "
                f"{tuple(image.shape[1:])}"
            )
        return given


@dataclass(frozen=True, eq=False)
class RankedRegions:
    """A map of regions, and their ranks.

    Attributes:
        map: ``(*spatial)`` float64: on every voxel the mean attribution of its region.
        ranks: ``(*spatial)`` int64: 1 is the region of the largest mean; voxels in no region have
            the last rank.
    """

    map: Tensor
    ranks: Tensor

    def listed(self, count: int) -> list[dict[str, float]]:
        """Rank, mean value and number of voxels of the first regions, for a sidecar."""
        ranks = self.ranks.flatten()
        voxels = torch.bincount(ranks)
        values = torch.bincount(ranks, self.map.flatten()) / voxels
        return [
            {"rank": rank, "value": float(values[rank]), "voxels": int(voxels[rank])}
            for rank in range(1, min(count + 1, len(voxels)))
            if voxels[rank]
        ]


_Floats = NDArray[np.float64]


def rank_segments(
    values: Tensor, segments: Segments, minimum: int, mode: Mode = "full"
) -> RankedRegions:
    """The regions of an image: segments in order of their mean, without the voxels of earlier ones.

    ``full`` takes the segment with the largest mean over the voxels that it would add, until none
    is left; ``fast`` takes the segments in the order of their own means. A segment that adds fewer
    than ``minimum`` voxels is skipped. Sums are kept per cell of the segments and updated as cells
    are covered, so that the image is read once.

    Args:
        values: ``(*spatial)``, on the grid of the segments.
        segments: The candidates.
        minimum: Voxels, at least 1.
        mode: How the next segment is chosen.
    """
    sums, sizes = segments.sums(values), segments.sizes
    order = _greedily if mode == "full" else _by_own_mean
    region = np.full(len(sizes), -1, dtype=np.int64)
    means: list[float] = []
    for added in order(segments, sums, sizes, max(1, minimum)):
        region[added] = len(means)
        means.append(float(sums[added].sum() / sizes[added].sum()))
    outside = (region < 0) & (sizes > 0)
    rest = float(sums[outside].sum() / sizes[outside].sum()) if outside.any() else 0.0
    ranks = np.empty(len(means) + 1, dtype=np.int64)
    ranks[np.argsort(-np.array(means), kind="stable")] = np.arange(1, len(means) + 1)
    # The region -1 of cells outside is the last entry of both.
    ranks[-1] = len(means) + 1
    by_region = np.array([*means, rest])
    cells = segments.cells
    return RankedRegions(
        torch.from_numpy(by_region[region])[cells], torch.from_numpy(ranks[region])[cells]
    )


def _greedily(
    segments: Segments, sums: _Floats, sizes: _Floats, minimum: int
) -> Iterator[NDArray[np.int64]]:
    """The cells that each segment adds, the largest mean first."""
    rows, columns = segments.members, segments.members.tocsc()
    total, voxels = rows @ sums, rows @ sizes
    covered = np.zeros(len(sizes), dtype=bool)
    while (candidates := voxels >= minimum).any():
        means = np.where(candidates, total / np.maximum(voxels, 1), -np.inf)
        added = _uncovered(segments, int(means.argmax()), covered)
        covered[added] = True
        containing = columns[:, added]
        total, voxels = total - containing @ sums[added], voxels - containing @ sizes[added]
        yield added


def _by_own_mean(
    segments: Segments, sums: _Floats, sizes: _Floats, minimum: int
) -> Iterator[NDArray[np.int64]]:
    """The cells that each segment adds, in the order of the means of whole segments."""
    rows = segments.members
    voxels = rows @ sizes
    means = np.where(voxels > 0, (rows @ sums) / np.maximum(voxels, 1), -np.inf)
    covered = np.zeros(len(sizes), dtype=bool)
    for segment in np.argsort(-means, kind="stable"):
        added = _uncovered(segments, int(segment), covered)
        if sizes[added].sum() >= minimum:
            covered[added] = True
            yield added


def _uncovered(segments: Segments, segment: int, covered: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The cells of a segment that no earlier segment covers."""
    starts = segments.members.indptr
    cells: NDArray[np.int64] = segments.members.indices[starts[segment] : starts[segment + 1]]
    return cells[~covered[cells]]
