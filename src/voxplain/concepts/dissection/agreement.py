"""Agreement of thresholded units with concepts, from counts of voxels at every threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Threshold = Literal["max_iou", "fixed_quantile", "max_information"]


@dataclass(frozen=True, eq=False)
class Agreement:
    """Voxels of a concept and of a unit above thresholds; any shapes that broadcast.

    Attributes:
        both: In both, ``(units, thresholds)``.
        on: At or above the threshold.
        size: Of the concept.
        total: All.
    """

    both: Array
    on: Array
    size: Array | float
    total: Array | float

    @property
    def iou(self) -> Array:
        """Intersection over union; NaN where both are empty."""
        return _ratio(self.both, self.on + self.size - self.both)

    @property
    def dice(self) -> Array:
        """Dice; NaN where both are empty."""
        return _ratio(2 * self.both, self.on + self.size)

    @property
    def precision(self) -> Array:
        """Share of the unit that lies in the concept."""
        return _ratio(self.both, self.on)

    @property
    def recall(self) -> Array:
        """Share of the concept that the unit covers."""
        return _ratio(self.both, self.size + 0 * self.on)

    @property
    def information(self) -> Array:
        """Mutual information of unit and concept in bits."""
        only_on, only_in = self.on - self.both, self.size - self.both
        neither = self.total - self.on - only_in
        p, q = _ratio(self.on, self.total + 0 * self.on), self.size / np.maximum(self.total, 1)
        cells = ((self.both, p * q), (only_on, p * (1 - q)), (only_in, (1 - p) * q))
        parts = [_bits(n, self.total, e) for n, e in (*cells, (neither, (1 - p) * (1 - q)))]
        return np.asarray(sum(parts))

    @property
    def average_precision(self) -> Array:
        """Area under precision and recall over all thresholds (the last axis), ``(units,)``."""
        ends = _from_empty(self.both), _from_empty(self.on)
        gained = np.diff(ends[0], axis=-1)
        precision = np.nan_to_num(_ratio(ends[0][..., 1:], ends[1][..., 1:]))
        return _ratio((gained * precision).sum(axis=-1), self.size + 0 * gained[..., 0])

    @property
    def auc(self) -> Array:
        """Area under the ROC curve over all thresholds (the last axis), ``(units,)``."""
        inside = _from_empty(self.both)
        outside = _from_empty(self.on) - inside
        area = (np.diff(outside, axis=-1) * (inside[..., 1:] + inside[..., :-1]) / 2).sum(axis=-1)
        return _ratio(area, self.size * (self.total - self.size) + 0 * area)

    @property
    def with_all(self) -> Agreement:
        """The same with the lowest threshold, which all voxels reach, before the others."""
        ones = np.ones_like(self.on[..., :1])
        both = np.concatenate([ones * self.size, self.both], axis=-1)
        return Agreement(
            both, np.concatenate([ones * self.total, self.on], -1), self.size, self.total
        )


def chosen_threshold(agreement: Agreement, rule: Threshold, quantile: float) -> NDArray[np.int64]:
    """The number of the best threshold per unit, -1 where there is none.

    Args:
        agreement: On the cases to select on, ``(units, thresholds)``.
        rule: What is best; none is where there is nothing of the concept to choose it by.
        quantile: The share that is on, for ``fixed_quantile``.
    """
    if rule == "fixed_quantile":
        goodness = -np.abs(_ratio(agreement.on, agreement.total + 0 * agreement.on) - quantile)
    else:
        goodness = agreement.iou if rule == "max_iou" else agreement.information
    separates = (agreement.on > 0) & (agreement.on < agreement.total)
    goodness = np.where(separates & np.isfinite(goodness), goodness, -np.inf)
    best, found = goodness.argmax(axis=-1), goodness.max(axis=-1)
    is_useful = np.isfinite(found) & ((found > 0) | (rule == "fixed_quantile"))
    return np.where(is_useful, best, -1)


def _from_empty(reached: Array) -> Array:
    """Counts from the highest threshold down, 0 first."""
    falling = reached[..., ::-1]
    return np.concatenate([np.zeros_like(falling[..., :1]), falling], axis=-1)


def _ratio(above: Array, below: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(below > 0, above / below, np.nan))


def _bits(count: Array, total: Array | float, expected: Array) -> Array:
    share = _ratio(count, total + 0 * count)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(share > 0, share * np.log2(share / expected), 0.0)
