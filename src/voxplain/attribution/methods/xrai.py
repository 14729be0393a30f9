"""XRAI: any map, summed up over segments of the image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, SerializeAsAny, field_validator
from torch import Tensor

from voxplain.attribution.methods.integrated_gradients import IntegratedGradientsBlackWhite
from voxplain.attribution.methods.layer_method import LayerMethod
from voxplain.attribution.methods.wrapper import Around
from voxplain.engine.context import Context
from voxplain.engine.method import Method, Resampling, register
from voxplain.engine.stream_io import MethodOutput
from voxplain.errors import ConfigError
from voxplain.regions import Segments, scales

_LISTED = 100

Mode = Literal["full", "fast"]


@register
class Xrai(Around):
    """Which regions of the image matter most: a map averaged over segments, the best first.

    Candidates are all segments of six scales, found on the image without noise. The largest value
    over the channels counts; take the absolute values of the inner map where signs should not.

    Attributes:
        of: The method whose map is summed up.
        mode: ``full`` ranks by what a segment adds, ``fast`` by the mean of whole segments.
        minimum: Least part of the image that a segment adds.
        segments: ``(n, *spatial)`` in place of the six scales: boolean masks, or label maps.
    """

    family = "region"
    formula = "on each segment the mean of M over the voxels that it adds, largest mean first"
    reference = "Kapishnikov et al., 2019"
    units: ClassVar[str] = "mean of the inner map per voxel"
    resampling: ClassVar[Resampling] = "value"
    complete: ClassVar[bool] = False

    name: Literal["xrai"] = "xrai"
    of: SerializeAsAny[Method] = Field(
        default=IntegratedGradientsBlackWhite(), description="the method that is summed up"
    )
    mode: Mode = "full"
    minimum: float = Field(
        default=0.001, gt=0, lt=1, description="least part of the image that a segment adds"
    )
    segments: Any = Field(
        default=None, description="masks or label maps (n, *spatial); absent: six scales"
    )

    @field_validator("of")
    @classmethod
    def _on_the_image(cls, value: Method) -> Method:
        if isinstance(getattr(value, "of", value), LayerMethod):
            raise ValueError(f"{value.key} is a map of a layer; take one of the image, as CAMs are")
        return value

    def conclude(
        self, maps: dict[str | None, Tensor], image: Tensor, context: Context
    ) -> MethodOutput:
        """The regions of the inner map, once it is complete."""
        inner = self.of.conclude(maps, image, context)
        if set(inner.maps) != {None}:
            raise ConfigError(f"xrai needs one map of the image, and {self.of.key} gives others")
        ranked = self.ranked(self.of.finish(inner.maps[None]), image, context.spacing)
        found = {**inner.findings, "regions": ranked.listed(_LISTED)}
        return MethodOutput({None: ranked.map[None].to(image)}, found)

    def ranked(
        self, map: Tensor, image: Tensor, spacing: tuple[float, ...] | None
    ) -> RankedRegions:
        """The regions of a map ``(C, *spatial)`` of an image, in their order.

        Raises:
            ConfigError: If the given segments do not lie on the image.
        """
        segments = self._candidates(image, spacing)
        largest = map.detach().amax(dim=0)
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

    @property
    def key(self) -> str:
        """The label, or the name with that of the inner method where it is not the default."""
        inner = "" if self.of == IntegratedGradientsBlackWhite() else f"_{self.of.key}"
        return self.label or f"{self.name}{inner}"

    @property
    def sign(self) -> Literal["signed", "absolute", "positive"]:
        """That of the inner method."""
        return super().sign if self.of.sign == "signed" else self.of.sign


_Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RankedRegions:
    """A map in regions, and their order.

    Attributes:
        map: ``(*spatial)`` float64: on every voxel the mean attribution of its region.
        ranks: ``(*spatial)`` int64: 1 is the region of the largest mean; what no region covers is
            the last.
    """

    map: Tensor
    ranks: Tensor

    def listed(self, most: int) -> list[dict[str, float]]:
        """Rank, value and voxels of the first regions, for a sidecar."""
        ranks = self.ranks.flatten()
        voxels = torch.bincount(ranks)
        values = torch.bincount(ranks, self.map.flatten()) / voxels
        return [
            {"rank": rank, "value": float(values[rank]), "voxels": int(voxels[rank])}
            for rank in range(1, min(most + 1, len(voxels)))
            if voxels[rank]
        ]


def rank_segments(
    map: Tensor, segments: Segments, minimum: int, mode: Mode = "full"
) -> RankedRegions:
    """Puts segments together, the best first, until nothing is left to add.

    ``full`` takes again and again the segment with the largest mean over the voxels that it newly
    adds; ``fast`` goes through the segments in the order of their own means. A segment that adds
    fewer than ``minimum`` voxels is skipped. Sums are kept per cell of the segments and reduced as
    cells are covered, so that no image is gone through twice.

    Args:
        map: ``(*spatial)``, on the grid of the segments.
        segments: The candidates.
        minimum: Voxels, at least 1.
        mode: How the next segment is found.
    """
    sums, sizes = segments.sums(map), segments.sizes
    order = _greedily if mode == "full" else _by_own_mean
    region = np.full(len(sizes), -1, dtype=np.int64)
    means: list[float] = []
    for added in order(segments, sums, sizes, max(1, minimum)):
        region[added] = len(means)
        means.append(float(sums[added].sum() / sizes[added].sum()))
    left = (region < 0) & (sizes > 0)
    rest = float(sums[left].sum() / sizes[left].sum()) if left.any() else 0.0
    ranks = np.empty(len(means) + 1, dtype=np.int64)
    ranks[np.argsort(-np.array(means), kind="stable")] = np.arange(1, len(means) + 1)
    # Index -1, in no region, is the last entry of both.
    ranks[-1] = len(means) + 1
    values = np.array([*means, rest])
    cells = segments.cells
    return RankedRegions(
        torch.from_numpy(values[region])[cells], torch.from_numpy(ranks[region])[cells]
    )


def _greedily(
    segments: Segments, sums: _Floats, sizes: _Floats, minimum: int
) -> Iterator[NDArray[np.int64]]:
    """The cells that each segment adds, the largest mean first."""
    rows, columns = segments.members, segments.members.tocsc()
    total, voxels = rows @ sums, rows @ sizes
    covered = np.zeros(len(sizes), dtype=bool)
    while (open_ := voxels >= minimum).any():
        gain = np.where(open_, total / np.maximum(voxels, 1), -np.inf)
        added = _uncovered(segments, int(gain.argmax()), covered)
        covered[added] = True
        part = columns[:, added]
        total, voxels = total - part @ sums[added], voxels - part @ sizes[added]
        yield added


def _by_own_mean(
    segments: Segments, sums: _Floats, sizes: _Floats, minimum: int
) -> Iterator[NDArray[np.int64]]:
    """The cells that each segment adds, in the order of the means of whole segments."""
    rows = segments.members
    voxels = rows @ sizes
    mean = np.where(voxels > 0, (rows @ sums) / np.maximum(voxels, 1), -np.inf)
    covered = np.zeros(len(sizes), dtype=bool)
    for segment in np.argsort(-mean, kind="stable"):
        added = _uncovered(segments, int(segment), covered)
        if sizes[added].sum() >= minimum:
            covered[added] = True
            yield added


def _uncovered(segments: Segments, segment: int, covered: NDArray[np.bool_]) -> NDArray[np.int64]:
    starts = segments.members.indptr
    cells: NDArray[np.int64] = segments.members.indices[starts[segment] : starts[segment + 1]]
    return cells[~covered[cells]]
