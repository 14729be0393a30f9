"""Complexity: how much of the image a map involves. No forward is needed."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from voxplain.metrics.context import MetricContext
from voxplain.metrics.maps import MapField, Undefined
from voxplain.metrics.metric import Direction, Metric, Value, register
from voxplain.metrics.queries.voxel_sets import components


class _Complexity(Metric):
    """Lower is simpler."""

    family: ClassVar[str] = "complexity"
    direction: ClassVar[Direction] = "down"


def _magnitudes(field: MapField) -> Tensor:
    """The magnitudes of a map, flat and ascending."""
    magnitudes = field.require_informative().abs().flatten().sort().values
    if float(magnitudes[-1]) == 0:
        raise Undefined("the map is zero everywhere")
    return magnitudes


@register
class Sparseness(_Complexity):
    """How few voxels carry the map: 0 if all are equal, near 1 for a single voxel (Gini index).

    The Gini index of the magnitudes (Chalasani et al., 2020).
    """

    direction: ClassVar[Direction] = "up"
    range: ClassVar[tuple[float | None, float | None]] = (0.0, 1.0)
    reference: ClassVar[str] = "Chalasani et al., 2020"
    name: Literal["sparseness"] = "sparseness"

    def score(self, field: MapField, context: MetricContext) -> Value:
        magnitudes = _magnitudes(field)
        count = len(magnitudes)
        ranks = torch.arange(1, count + 1, dtype=torch.float64, device=magnitudes.device)
        weighted = float(((2 * ranks - count - 1) * magnitudes).sum())
        return Value(weighted / (count * float(magnitudes.sum())))


@register
class Entropy(_Complexity):
    """How evenly the map spreads over the image: 1 if all voxels are equal.

    -sum p ln p / ln N with p = |a| / sum |a| over N voxels (Bhatt et al., 2020).
    """

    range: ClassVar[tuple[float | None, float | None]] = (0.0, 1.0)
    reference: ClassVar[str] = "Bhatt et al., 2020"
    name: Literal["entropy"] = "entropy"

    def score(self, field: MapField, context: MetricContext) -> Value:
        magnitudes = _magnitudes(field)
        shares = magnitudes / magnitudes.sum()
        entropy = float(-torch.special.xlogy(shares, shares).sum())
        return Value(entropy / math.log(len(magnitudes)))


def smallest_set(field: MapField, share: float) -> Tensor:
    """The fewest voxels that hold this share of the magnitude, ``(*spatial)`` bool."""
    magnitudes = field.require_informative().abs()
    values, order = magnitudes.flatten().sort(descending=True)
    held = values.cumsum(0)
    count = int(torch.searchsorted(held, share * float(held[-1]) * (1 - 1e-12))) + 1
    chosen = torch.zeros_like(values, dtype=torch.bool)
    chosen[order[:count]] = True
    return chosen.view(magnitudes.shape)


@register
class EffectiveVolume(_Complexity):
    """The smallest volume that holds 90 % of the map's magnitude.

    In mL; in cm² in 2-D, in voxels where the physical size is unknown.
    """

    range: ClassVar[tuple[float | None, float | None]] = (0.0, None)
    unit: ClassVar[str] = "mL"
    name: Literal["effective_volume"] = "effective_volume"
    share: float = Field(default=0.9, gt=0, le=1)

    def score(self, field: MapField, context: MetricContext) -> Value:
        count = int(smallest_set(field, self.share).sum())
        size, unit = _voxel_size(context)
        return Value(count * size, facts={"unit": unit, "voxels": count})


@register
class Components(_Complexity):
    """How many separate places hold 90 % of the map's magnitude.

    Connected components of at least the smallest size; diagonal neighbors are connected.
    """

    range: ClassVar[tuple[float | None, float | None]] = (0.0, None)
    unit: ClassVar[str] = "count"
    name: Literal["components"] = "components"
    share: float = Field(default=0.9, gt=0, le=1)
    smallest: float = Field(
        default=0.1, ge=0, description="mL (cm² in 2-D); smaller ones are noise"
    )

    def score(self, field: MapField, context: MetricContext) -> Value:
        labels, count = components(smallest_set(field, self.share))
        size, unit = _voxel_size(context)
        sizes = torch.bincount(torch.from_numpy(labels).flatten().long(), minlength=count + 1)[1:]
        limit = self.smallest if unit != "voxels" else 0.0
        return Value(float((sizes.double() * size >= limit).sum()), facts={"all": count})


@register
class EffectiveComplexity(_Complexity):
    """The share of voxels whose magnitude exceeds 1 % of the largest.

    Nguyen and Martínez, 2020; relative to the maximum of this image alone.
    """

    range: ClassVar[tuple[float | None, float | None]] = (0.0, 1.0)
    reference: ClassVar[str] = "Nguyen and Martínez, 2020"
    name: Literal["effective_complexity"] = "effective_complexity"
    eps: float = Field(default=0.01, gt=0, lt=1)

    def score(self, field: MapField, context: MetricContext) -> Value:
        magnitudes = _magnitudes(field)
        return Value(float((magnitudes > self.eps * magnitudes[-1]).double().mean()))


@register
class ModalityShare(Metric):
    """How much of the map's magnitude falls on the input channel with the largest share.

    The shares of all channels are in the facts.
    """

    family: ClassVar[str] = "complexity"
    direction: ClassVar[Direction] = "none"
    range: ClassVar[tuple[float | None, float | None]] = (0.0, 1.0)
    name: Literal["channel_share"] = "channel_share"

    def score(self, field: MapField, context: MetricContext) -> Value:
        field.require_informative()
        if len(field.map) != len(context.input.image):
            raise Undefined("the map does not have one channel for each channel of the image")
        sums = field.map.double().abs().flatten(1).sum(dim=1)
        shares = (sums / sums.sum()).tolist()
        scan = context.engine.image
        names = scan.channels if scan else tuple(f"channel {n}" for n in range(len(shares)))
        return Value(max(shares), facts=dict(zip(names, shares, strict=True)))


def _voxel_size(context: MetricContext) -> tuple[float, str]:
    """The size of a voxel, and its unit."""
    spacing = context.engine.spacing
    if spacing is None:
        return 1.0, "voxels"
    product = math.prod(spacing)
    return (product / 1000, "mL") if len(spacing) > 2 else (product / 100, "cm²")
