"""Reducers of the masked stream: from one score per mask to a map."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from voxplain.engine.masks.coalitions import Coalitions
from voxplain.engine.masks.dense import DenseMasks
from voxplain.engine.masks.masks import Boxes, Masks, Painter
from voxplain.regions import RegionMap


@dataclass(frozen=True, eq=False)
class Reduction:
    """What a reducer makes of the scores of one image.

    Attributes:
        map: ``(1 or C, *spatial)``, or one number per mask or channel.
        total: What the method shares out: should be S(x) - S(nothing left).
        empty: S where everything is removed.
        findings: For the sidecar: fit, values by region, and the like.
    """

    map: Tensor
    total: float | None = None
    empty: float | None = None
    findings: Mapping[str, Any] = field(default_factory=dict)


class MaskReducer(ABC):
    """Sums up the scores of one image; subclasses are frozen dataclasses.

    Attributes:
        complete: Whether what it shares out should be S(x) - S(nothing left).
    """

    complete: ClassVar[bool] = False

    def facing(self, masks: Masks, painters: Sequence[Painter]) -> MaskReducer:
        """The same for the masks of one image, for reducers that compare masked images with it.

        Args:
            masks: Of the image.
            painters: What wrote them: they hold the image and what removed voxels become.
        """
        return self

    @abstractmethod
    def reduce(self, masks: Masks, scores: Tensor, whole: float) -> Reduction:
        """The map.

        Args:
            masks: Of the image.
            scores: S under each mask, ``(n,)`` float64.
            whole: S of the image as it is.
        """


@dataclass(frozen=True)
class Drop(MaskReducer):
    """S(x) - S(x_m), credited to what the mask removes; where masks overlap, their mean."""

    def reduce(self, masks: Masks, scores: Tensor, whole: float) -> Reduction:
        """Boxes by sums over their corners, regions by their label, anything else as numbers."""
        drops = whole - scores
        if isinstance(masks, Boxes):
            return Reduction((masks.summed(drops) / masks.cover.clamp_min(1))[None])
        if isinstance(masks, Coalitions):
            return by_region(masks, drops)
        return Reduction(drops)


@dataclass(frozen=True)
class WeightedMean(MaskReducer):
    """sum_j (S(x_mj) - mean S) m_j / sum_j m_j: how much above the mean S is where a voxel is seen.

    The mean over all masks is left out of the map, which it would dominate where a score is the
    sum over many voxels; with the mean from the findings added it is the published definition.

    Attributes:
        about: What the findings are about, for methods that take the mean several times.
    """

    about: str = ""

    def reduce(self, masks: Masks, scores: Tensor, whole: float) -> Reduction:
        """One value per voxel."""
        if not isinstance(masks, DenseMasks):
            raise TypeError("a weighted mean is for masks with a weight on every voxel")
        mean = scores.mean()
        seen = masks.summed(torch.ones_like(scores)).clamp_min(1e-12)
        spread = float(scores.std(correction=0))
        about = f" {self.about}" if self.about else ""
        findings = {f"mean_score{about}": float(mean), f"spread_of_scores{about}": spread}
        return Reduction((masks.summed(scores - mean) / seen)[None], findings=findings)


@dataclass(frozen=True)
class MaskScores(MaskReducer):
    """The scores themselves, for methods that sum them up with something else."""

    def reduce(self, masks: Masks, scores: Tensor, whole: float) -> Reduction:
        """One number per mask."""
        return Reduction(scores)


def by_region(
    masks: Coalitions,
    values: Tensor,
    total: float | None = None,
    empty: float | None = None,
    findings: Mapping[str, Any] | None = None,
    beside: Mapping[str, Tensor] | None = None,
) -> Reduction:
    """Values ``(regions,)`` on every voxel of their region, and listed by name.

    Args:
        masks: Coalitions of these regions.
        values: One per region.
        total: What the method shares out.
        empty: S where everything is removed.
        findings: For the sidecar.
        beside: Other values ``(regions,)`` to list with them.
    """
    painted = masks.regions.painted(values)
    listed = {"regions": listing(masks.regions, values, beside), **(findings or {})}
    per_channel = masks.regions.labels.ndim > len(masks.shape)
    return Reduction(painted if per_channel else painted[None], total, empty, listed)


def listing(
    regions: RegionMap,
    values: Tensor,
    beside: Mapping[str, Tensor] | None = None,
    most: int = 256,
) -> list[dict[str, Any]]:
    """The regions with the largest values, by magnitude."""
    order = values.abs().argsort(descending=True, stable=True)[:most].tolist()
    sizes = regions.sizes.tolist()
    return [
        {
            "name": regions.name(index),
            "value": float(values[index]),
            **{name: float(others[index]) for name, others in (beside or {}).items()},
            "voxels": sizes[index],
        }
        for index in order
    ]
