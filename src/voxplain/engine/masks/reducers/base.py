"""Base class and simple reducers of masked streams: from one score per mask to a map."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import singledispatch
from typing import Any, ClassVar

import torch
from torch import Tensor

from voxplain.engine.masks.coalitions import Coalitions
from voxplain.engine.masks.dense import DenseMasks
from voxplain.engine.masks.masks import Boxes, Masks, Painter
from voxplain.regions import RegionMap


@dataclass(frozen=True, eq=False)
class Reduction:
    """The map of one image, with further results.

    Attributes:
        map: ``(1 or C, *spatial)``, or one number per mask or channel.
        total: Sum of the attributions, which should be S(x) - S(everything removed).
        empty: S with everything removed.
        findings: Further results for the sidecar: fit, values by region, and the like.
    """

    map: Tensor
    total: float | None = None
    empty: float | None = None
    findings: Mapping[str, Any] = field(default_factory=dict)


class MaskReducer(ABC):
    """Makes a map of the scores of one image; subclasses are frozen dataclasses.

    Attributes:
        complete: Whether the attributions should sum to S(x) - S(everything removed).
    """

    complete: ClassVar[bool] = False

    def bound_to(self, masks: Masks, painters: Sequence[Painter]) -> MaskReducer:
        """The reducer with what it needs of the masked images of one image, by default nothing.

        Args:
            masks: Of the image.
            painters: Of the masks; they hold the image and the fills.
        """
        return self

    @abstractmethod
    def reduce(self, masks: Masks, scores: Tensor, full_score: float) -> Reduction:
        """The map of one image.

        Args:
            masks: Of the image.
            scores: S under each mask, ``(n,)`` float64.
            full_score: S of the image without mask.
        """


@dataclass(frozen=True)
class Drop(MaskReducer):
    """S(x) - S(x_m) on the voxels that a mask removes; the mean where masks overlap."""

    def reduce(self, masks: Masks, scores: Tensor, full_score: float) -> Reduction:
        """The drops on voxels for boxes and regions, else one number per mask."""
        return _on_voxels(masks, full_score - scores)


@singledispatch
def _on_voxels(masks: Masks, drops: Tensor) -> Reduction:  # noqa: ARG001
    return Reduction(drops)


@_on_voxels.register
def _(masks: Boxes, drops: Tensor) -> Reduction:
    return Reduction((masks.summed(drops) / masks.coverage.clamp_min(1))[None])


@_on_voxels.register
def _(masks: Coalitions, drops: Tensor) -> Reduction:
    return by_region(masks, drops)


@dataclass(frozen=True)
class WeightedMean(MaskReducer):
    """sum_j (S(x_mj) - mean S) m_j / sum_j m_j: centered mean score of the masks that keep a voxel.

    The mean over all masks is subtracted, as it would dominate the map of a score that is a sum
    over many voxels; with the mean from the findings added it is the published definition.

    Attributes:
        about: Suffix of the findings, for methods that take the mean several times.
    """

    about: str = ""

    def reduce(self, masks: Masks, scores: Tensor, full_score: float) -> Reduction:
        """One value per voxel, ``(1, *spatial)``."""
        if not isinstance(masks, DenseMasks):
            raise TypeError("a weighted mean is for masks with a weight on every voxel")
        mean = scores.mean()
        total_weight = masks.summed(torch.ones_like(scores)).clamp_min(1e-12)
        spread = float(scores.std(correction=0))
        about = f" {self.about}" if self.about else ""
        findings = {f"mean_score{about}": float(mean), f"spread_of_scores{about}": spread}
        return Reduction((masks.summed(scores - mean) / total_weight)[None], findings=findings)


@dataclass(frozen=True)
class MaskScores(MaskReducer):
    """The scores themselves, one per mask, for methods that reduce them further."""

    def reduce(self, masks: Masks, scores: Tensor, full_score: float) -> Reduction:
        return Reduction(scores)


def by_region(
    masks: Coalitions,
    values: Tensor,
    total: float | None = None,
    empty: float | None = None,
    findings: Mapping[str, Any] | None = None,
    columns: Mapping[str, Tensor] | None = None,
) -> Reduction:
    """Values ``(regions,)`` on the voxels of their regions, and as a list of regions.

    Args:
        masks: Coalitions of these regions.
        values: One per region.
        total: Sum of the attributions.
        empty: S with everything removed.
        findings: Further results for the sidecar.
        columns: Further values in the list of regions, by name: ``(regions,)``, or
            ``(regions, n)`` for lists.
    """
    painted = masks.regions.painted(values)
    listed = {"regions": list_regions(masks.regions, values, columns), **(findings or {})}
    per_channel = masks.regions.labels.ndim > len(masks.shape)
    return Reduction(painted if per_channel else painted[None], total, empty, listed)


def list_regions(
    regions: RegionMap,
    values: Tensor,
    columns: Mapping[str, Tensor] | None = None,
    limit: int = 256,
) -> list[dict[str, Any]]:
    """The regions with the largest values by magnitude, with name, value and size in voxels."""
    order = values.abs().argsort(descending=True, stable=True)[:limit].tolist()
    sizes = regions.sizes.tolist()
    return [
        {
            "name": regions.name(index),
            "value": float(values[index]),
            **{name: others[index].tolist() for name, others in (columns or {}).items()},
            "voxels": sizes[index],
        }
        for index in order
    ]
