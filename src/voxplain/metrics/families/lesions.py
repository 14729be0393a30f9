"""Lesions: how many of them a map finds, and how far away its evidence lies."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from scipy import ndimage

from voxplain.metrics.context import MetricContext
from voxplain.metrics.families.localization import Localization, compared_part, most_relevant
from voxplain.metrics.maps import MapField, Undefined
from voxplain.metrics.metric import Direction, Value, register
from voxplain.metrics.queries.voxel_sets import components, distance


@register
class LesionHitRate(Localization):
    """The share of lesions that the most relevant voxels of the map touch.

    Lesions are connected components of the reference mask. The facts hold the number of places
    (components of the most relevant voxels) that touch none.
    """

    name: Literal["lesion_hit_rate"] = "lesion_hit_rate"
    touch: float = Field(default=0.1, gt=0, le=1, description="of a lesion's voxels")
    factor: float = Field(default=2.0, gt=0, description="size of the top set, of the mask's")

    def score(self, field: MapField, context: MetricContext) -> Value:
        inside = self._reference(field, context)
        field = compared_part(field, context)
        count = min(field.values.numel(), max(1, round(self.factor * int(inside.sum()))))
        chosen = context.spread(most_relevant(field, count)).cpu().numpy()
        lesions, lesion_count = components(inside)
        numbers = range(1, lesion_count + 1)
        covered = np.asarray(ndimage.mean(chosen, lesions, numbers)).reshape(-1)
        places, place_count = components(torch.from_numpy(chosen))
        touching = np.unique(places[(lesions > 0) & (places > 0)])
        hits = int((covered >= self.touch).sum())
        false_positives = place_count - len(touching)
        facts = {"lesions": lesion_count, "hits": hits, "false_positives": false_positives}
        return Value(hits / lesion_count, facts=facts)


@register
class DistanceToLesion(Localization):
    """The mean distance of the positive evidence from the reference mask.

    Sum of evidence times distance over the sum of evidence.
    """

    direction: ClassVar[Direction] = "down"
    range: ClassVar[tuple[float | None, float | None]] = (0.0, None)
    unit: ClassVar[str] = "mm"
    name: Literal["distance_to_lesion"] = "distance_to_lesion"

    def score(self, field: MapField, context: MetricContext) -> Value:
        inside = self._reference(field, context)
        field = compared_part(field, context)
        total = float(field.positive.sum())
        if total <= 0:
            raise Undefined("the map has no positive value")
        distances = context.counted(distance(inside, context.spacing)).to(field.positive)
        unit = "mm" if context.engine.spacing else "voxels"
        return Value(float((field.positive * distances).sum()) / total, facts={"unit": unit})
