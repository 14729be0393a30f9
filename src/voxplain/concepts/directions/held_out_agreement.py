"""How well thresholded readings of a layer agree with a concept, over all places of all cases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from voxplain.concepts.case_contexts import CaseContexts
from voxplain.concepts.case_reading import image_vector, mask_of
from voxplain.concepts.concept import Concept
from voxplain.concepts.directions.directions import Directions
from voxplain.concepts.places import RegionOfInterest, region_of
from voxplain.engine.cohort import Cohort, CohortCase
from voxplain.engine.observation import observe
from voxplain.statistics import bootstrap


@dataclass(frozen=True, eq=False)
class DirectionReading:
    """Readings at the places of one case, and the concept there.

    Attributes:
        case: The case.
        scores: ``(D, places)``.
        labels: ``(places,)`` of bool.
    """

    case: CohortCase
    scores: Tensor
    labels: Tensor


@dataclass(frozen=True)
class HeldOutIou:
    """Intersection over union of thresholded readings with a concept, over the cases.

    Attributes:
        iou: Over all places of all cases; NaN where both masks are empty everywhere.
        interval: 95 % bootstrap interval over patients; None below 8 patients, or where both masks
            are empty in some of the resamples.
        by_case: IoU of every case by its id; NaN where both masks are empty.
    """

    iou: float
    interval: tuple[float, float] | None
    by_case: dict[str, float]


@dataclass(frozen=True, eq=False)
class DirectionReader:
    """Reads directions of one layer, case by case.

    Attributes:
        contexts: Of the network.
        directions: Of one layer.
        concept: What they are compared with.
        region: The voxels that count.
    """

    contexts: CaseContexts
    directions: Directions
    concept: Concept
    region: RegionOfInterest

    def read(self, case: CohortCase) -> DirectionReading | None:
        """Readings of a case; None where the concept is not known for it."""
        mask = mask_of(self.concept, case)
        if mask is None:
            return None
        context = self.contexts.open(case)
        (tap,) = context.layers.taps((self.directions.layer,))
        seen = observe(context, (tap,))
        is_spatial = seen.layers.placed_geometry(tap).spatial
        if self.concept.kind == "image" or not is_spatial:
            vector = image_vector(seen, tap, case, self.region)
            return DirectionReading(case, self.directions.encode(vector[:, None]), mask.any()[None])
        maps = seen.layers.on_image(tap, self.directions.encode(seen[tap])).cpu()
        inside = region_of(case, self.region)
        return DirectionReading(case, maps[:, inside], mask[inside] >= 0.5)


def best_thresholds(
    reader: DirectionReader, cohort: Cohort, edges: Tensor
) -> tuple[Tensor, Tensor]:
    """The threshold of each direction with the largest IoU over some cases, and that IoU.

    Args:
        reader: Of the directions.
        cohort: Cases to select on.
        edges: Thresholds to choose from, ``(D, edges)``, ascending.
    """
    count = edges.shape[1] + 1
    hits = torch.zeros(len(edges), count, dtype=torch.float64)
    others = torch.zeros_like(hits)
    for case in cohort:
        reading = reader.read(case)
        if reading is None:
            continue
        bins = torch.searchsorted(edges, reading.scores.contiguous(), right=True)
        for row, own in enumerate(bins):
            hits[row] += torch.bincount(own[reading.labels], minlength=count)
            others[row] += torch.bincount(own[~reading.labels], minlength=count)
    above_hits = hits.flip(1).cumsum(1).flip(1)[:, 1:]
    above = above_hits + others.flip(1).cumsum(1).flip(1)[:, 1:]
    iou = above_hits / (above + hits.sum(1, keepdim=True) - above_hits)
    best = iou.nan_to_num(-1).argmax(dim=1, keepdim=True)
    return edges.gather(1, best)[:, 0], iou.gather(1, best)[:, 0]


def agreements(
    reader: DirectionReader, cohort: Cohort, thresholds: Tensor, seed: int
) -> list[HeldOutIou]:
    """The agreement of each direction at its threshold over some cases."""
    counts: list[NDArray[np.float64]] = []
    ids, patients = [], []
    for case in cohort:
        reading = reader.read(case)
        if reading is None:
            continue
        above = reading.scores >= thresholds[:, None]
        both = (above & reading.labels).sum(dim=1)
        either = (above | reading.labels).sum(dim=1)
        counts.append(torch.stack([both, either], dim=1).double().numpy())
        ids.append(case.id)
        patients.append(case.patient)
    if not counts:
        return [HeldOutIou(float("nan"), None, {})] * len(thresholds)
    table = np.stack(counts)
    return [_agreement(table[:, row], ids, patients, seed) for row in range(len(thresholds))]


def _agreement(
    counts: NDArray[np.float64], ids: list[str], patients: list[str], seed: int
) -> HeldOutIou:
    interval = bootstrap(counts, np.asarray(patients), _ratio, seed=seed)
    if interval is not None and np.isnan(interval).any():
        interval = None
    by_case = {case: _ratio(row[None]) for case, row in zip(ids, counts, strict=True)}
    return HeldOutIou(_ratio(counts), interval, by_case)


def _ratio(counts: NDArray[np.float64]) -> float:
    both, either = counts.sum(axis=0)
    return float(both / either) if either else float("nan")
