"""Localization over all cases, with as large a share of every image, as in the INFORM study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from voxplain.metrics.context import MetricContext
from voxplain.metrics.cross_case import CaseSummary, CrossCaseMetric, to_compare
from voxplain.metrics.families.localization import Localization
from voxplain.metrics.maps import MapField
from voxplain.metrics.metric import Value, register

Table = NDArray[np.float64]


class _AtCommonLevels(CrossCaseMetric, Localization):
    """A comparison of the most relevant 1 %, 2 %, ... of every image with its reference mask."""

    levels: int

    def score(self, field: MapField, context: MetricContext) -> Value:
        """How many voxels are taken at every level, and how many of them lie in the mask."""
        field, inside = self._compared(field, context)
        hits = inside.flatten()[field.order].long().cumsum(0).tolist()
        total = len(hits)
        taken = [max(1, round(total * level / self.levels)) for level in range(1, self.levels + 1)]
        return to_compare({"taken": taken, "hits": [hits[count - 1] for count in taken]})


@register
class RocAucOfMeans(_AtCommonLevels):
    """Area under one ROC curve of all cases, whose rates are means over the cases.

    True and false positive rates are averaged over the cases at each share of the voxels, the most
    relevant first; the area is taken under the curve of the means. `roc_auc` is the mean of the
    areas of each case instead. The value of a case is the area of its true positive rates over the
    mean false positive rates, so that the mean over cases is the area; its interval takes the
    latter as given. The facts hold the area, the curve is that of the means.
    """

    chance: ClassVar[str] = "0.5"
    reference: ClassVar[str] = "Marchadour et al., INFORM study"
    name: Literal["roc_auc_of_means"] = "roc_auc_of_means"
    levels: int = Field(default=100, ge=2, description="shares of the voxels")

    def compare(self, cases: Sequence[CaseSummary]) -> list[Value]:
        """Per case the area of its true positive rates over the mean false positive rates."""
        taken, hits = _counts(cases)
        true_rates = hits / hits[:, -1:]
        false_rates = (taken - hits) / (taken - hits)[:, -1:]
        mean_true, mean_false = (
            np.concatenate([[0.0], rates.mean(axis=0)]) for rates in (true_rates, false_rates)
        )
        true_rates = np.concatenate([np.zeros((len(cases), 1)), true_rates], axis=1)
        heights = (true_rates[:, 1:] + true_rates[:, :-1]) / 2
        areas = (heights * np.diff(mean_false)).sum(axis=1)
        curve = tuple(zip(mean_false.tolist(), mean_true.tolist(), strict=True))
        facts = {"cases": len(cases), "area": float(areas.mean())}
        return [Value(float(area), curve, facts) for area in areas]


@register
class DiceAtCommonLevel(_AtCommonLevels):
    """Dice of the mask with the same share of most relevant voxels in every image.

    The share is that of 1 %, 2 %, ... at which the mean Dice over all cases is largest; `max_dice`
    takes the best share of each image instead, and is never below. The facts hold the share, the
    deviation over the cases there, and the best Dice of the case at any of these shares; the curve
    is the mean Dice over the share.
    """

    reference: ClassVar[str] = "Marchadour et al., INFORM study"
    name: Literal["dice_at_common_level"] = "dice_at_common_level"
    levels: int = Field(default=100, ge=1, description="shares of the voxels")

    def compare(self, cases: Sequence[CaseSummary]) -> list[Value]:
        """Per case its Dice at the share that is best for all."""
        taken, hits = _counts(cases)
        dice = 2 * hits / (taken + hits[:, -1:])
        means = dice.mean(axis=0)
        best = int(means.argmax())
        shares = (np.arange(self.levels) + 1) / self.levels
        curve = tuple(zip(shares.tolist(), means.tolist(), strict=True))
        deviation = float(dice[:, best].std(ddof=1))
        common: dict[str, Any] = {"share": float(shares[best]), "deviation": deviation}
        common["cases"] = len(cases)
        return [
            Value(float(own[best]), curve, common | {"best_of_case": float(own.max())})
            for own in dice
        ]


def _counts(cases: Sequence[CaseSummary]) -> tuple[Table, Table]:
    """Voxels that are taken, and those of them in the mask, ``(cases, levels)``."""
    taken, hits = (
        np.array([case.summary[name] for case in cases], dtype=np.float64)
        for name in ("taken", "hits")
    )
    return taken, hits
