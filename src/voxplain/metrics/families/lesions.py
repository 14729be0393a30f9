"""Lesions: how many of them a map finds, and how far from them its evidence lies."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from scipy import ndimage

from voxplain.metrics.context import MetricContext
from voxplain.metrics.families.localization import Localization, top
from voxplain.metrics.map_field import MapField, Undefined
from voxplain.metrics.metric import Direction, Value, register
from voxplain.metrics.queries.voxel_sets import components, distance


@register
class LesionHitRate(Localization):
    """The share of lesions that the map's top set touches."""

    name: Literal["lesion_hit_rate"] = "lesion_hit_rate"
    touch: float = Field(default=0.1, gt=0, le=1, description="of a lesion's voxels")
    factor: float = Field(default=2.0, gt=0, description="size of the top set, of the mask's")

    def score(self, field: MapField, context: MetricContext) -> Value:
        """Hits over lesions; false positive components in the facts."""
        inside = self._reference(field, context)
        count = min(inside.numel(), max(1, round(self.factor * int(inside.sum()))))
        chosen = top(field, count).cpu().numpy()
        labels, found = components(inside)
        numbers = range(1, found + 1)
        covered = np.asarray(ndimage.mean(chosen, labels, numbers)).reshape(-1)
        islands, number = components(torch.from_numpy(chosen))
        touching = np.unique(islands[(labels > 0) & (islands > 0)])
        hits = int((covered >= self.touch).sum())
        facts = {"lesions": found, "hits": hits, "false_positives": number - len(touching)}
        return Value(hits / found, facts=facts)


@register
class DistanceToLesion(Localization):
    """The mean distance of the positive evidence from the mask."""

    direction: ClassVar[Direction] = "down"
    range: ClassVar[tuple[float | None, float | None]] = (0.0, None)
    unit: ClassVar[str] = "mm"
    name: Literal["distance_to_lesion"] = "distance_to_lesion"

    def score(self, field: MapField, context: MetricContext) -> Value:
        """Sum of evidence times distance over the sum of evidence."""
        inside = self._reference(field, context)
        total = float(field.positive.sum())
        if total <= 0:
            raise Undefined("the map has no positive value")
        far = distance(inside, context.spacing).to(field.positive)
        unit = "mm" if context.base.spacing else "voxels"
        return Value(float((field.positive * far).sum()) / total, facts={"unit": unit})
