"""Units against concepts that hold for whole images, such as a class or a scanner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from voxplain.concepts.dissection.units import UnitGroup
from voxplain.records.dissection import ImagePairDissected
from voxplain.statistics import benjamini_hochberg, bootstrap

Array = NDArray[np.float64]
_POOLINGS: tuple[Literal["max", "mean"], ...] = ("max", "mean")
_FEWEST = 2
"""Fewest images with and without a concept."""


@dataclass
class ImageActivations:
    """Maximum and mean of units over the image, case by case.

    Attributes:
        names: Of the units, by group.
        pooled: ``(2, units)`` per case, by group.
        holds: ``(concepts,)`` per case: 1, 0, or NaN where it is not known.
        patients: Of the cases.
        held_out: Whether a case is held out.
    """

    names: dict[UnitGroup, tuple[str, ...]] = field(default_factory=dict)
    pooled: dict[UnitGroup, list[Array]] = field(default_factory=dict)
    holds: list[Array] = field(default_factory=list)
    patients: list[str] = field(default_factory=list)
    held_out: list[bool] = field(default_factory=list)

    def add_case(self, holds: Sequence[Tensor | None], patient: str, held_out: bool) -> None:
        """A case; the activations of its units follow."""
        values = [np.nan if hold is None else float(hold) for hold in holds]
        self.holds.append(np.array(values))
        self.patients.append(patient)
        self.held_out.append(held_out)

    def add(self, group: UnitGroup, names: tuple[str, ...], pooled: Tensor) -> None:
        """The units of a group for the present case."""
        self.names[group] = names
        self.pooled.setdefault(group, []).append(pooled.double().numpy())


def image_pairs(found: ImageActivations, concepts: Sequence[str]) -> list[ImagePairDissected]:
    """Every unit with every concept; nothing where too few images have or lack it.

    Paper: Bykov et al., Labeling neural representations with inverse recognition, 2023.

    Args:
        found: Of all cases.
        concepts: Names of the concepts.
    """
    pairs: list[ImagePairDissected] = []
    for number, concept in enumerate(concepts):
        for group, pooled in found.pooled.items():
            pairs += _pairs(found, np.stack(pooled), group, number, concept)
    adjusted = benjamini_hochberg([np.nan if pair.p is None else pair.p for pair in pairs])
    return [
        pair.model_copy(update={"p_adjusted": value if np.isfinite(value) else None})
        for pair, value in zip(pairs, adjusted, strict=True)
    ]


def area_above(positive: Array, negative: Array) -> Array:
    """P(A+ > A-), ties being a half, per column of ``(images, units)``."""
    ranks = stats.rankdata(np.concatenate([positive, negative]), axis=0)
    count = len(positive)
    above = ranks[:count].sum(axis=0) - count * (count + 1) / 2
    return np.asarray(above / (count * len(negative)))


def average_precision(values: Array, holds: NDArray[np.bool_]) -> Array:
    """Area under precision and recall per column of ``(images, units)``; ties count together."""
    found = []
    for column in values.T:
        order = np.argsort(-column, kind="stable")
        hits = holds[order].cumsum()
        last = np.append(np.flatnonzero(np.diff(column[order])), len(column) - 1)
        gained = np.diff(hits[last], prepend=0) / hits[-1]
        found.append(float((gained * hits[last] / (last + 1)).sum()))
    return np.array(found)


def _pairs(
    found: ImageActivations, pooled: Array, group: UnitGroup, number: int, concept: str
) -> list[ImagePairDissected]:
    holds = np.stack(found.holds)[:, number]
    held_out, patients = np.array(found.held_out), np.array(found.patients)
    known = np.isfinite(holds)
    scored, chosen = known & held_out, known & ~held_out
    if not _both(holds[scored]):
        return []
    pooling = np.ones(pooled.shape[2], dtype=np.int64)
    selection = np.full(pooled.shape[2], np.nan)
    if _both(holds[chosen]):
        areas = np.stack([_area(pooled[chosen, way], holds[chosen] > 0) for way in (0, 1)])
        pooling = np.abs(areas - 0.5).argmax(axis=0)
        selection = np.take_along_axis(areas, pooling[None], axis=0)[0]
    values = np.take_along_axis(pooled[scored], pooling[None, None], axis=1)[:, 0]
    truth = holds[scored] > 0
    areas, precision = _area(values, truth), average_precision(values, truth)
    p = _mann_whitney(values, truth, patients[scored])
    best = int(np.nan_to_num(np.abs((selection if _both(holds[chosen]) else areas) - 0.5)).argmax())
    interval = _interval(values[:, best], truth, patients[scored])
    return [
        ImagePairDissected(
            unit=name,
            origin=group.origin,
            concept=concept,
            pooling=_POOLINGS[pooling[unit]],
            auc=_number(areas[unit]),
            interval=interval if unit == best else None,
            average_precision=_number(precision[unit]),
            p=_number(p[unit]),
            selection_auc=_number(selection[unit]),
        )
        for unit, name in enumerate(found.names[group])
    ]


def _both(holds: Array) -> bool:
    return min(int((holds == 1).sum()), int((holds == 0).sum())) >= _FEWEST


def _area(values: Array, holds: NDArray[np.bool_]) -> Array:
    area = area_above(values[holds], values[~holds])
    return np.where(values.max(axis=0) > values.min(axis=0), area, np.nan)


def _mann_whitney(values: Array, holds: NDArray[np.bool_], patients: NDArray[np.str_]) -> Array:
    """P values over patients, whose images with and without the concept are averaged."""
    sides = []
    for side in (True, False):
        names = dict.fromkeys(patients[holds == side].tolist())
        means = [values[(patients == name) & (holds == side)].mean(axis=0) for name in names]
        sides.append(np.stack(means))
    p = np.asarray(stats.mannwhitneyu(*sides, axis=0).pvalue)
    return np.where(values.max(axis=0) > values.min(axis=0), p, np.nan)


def _interval(
    values: Array, holds: NDArray[np.bool_], patients: NDArray[np.str_]
) -> tuple[float, float] | None:
    """The bootstrap interval of the AUC over patients."""

    def auc(cases: Array) -> float:
        sample = cases.astype(np.int64)
        truth, drawn = holds[sample], values[sample, None]
        if truth.all() or not truth.any():
            return 0.5
        return float(area_above(drawn[truth], drawn[~truth])[0])

    return bootstrap(np.arange(len(values), dtype=np.float64), patients, auc)


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
