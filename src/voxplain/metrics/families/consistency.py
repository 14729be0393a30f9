"""Do cases with the same explanation have the same prediction? Answered over all cases."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from voxplain.engine.randomness import generator
from voxplain.metrics.context import MetricContext
from voxplain.metrics.cross_case import CaseSummary, CrossCaseMetric, to_compare
from voxplain.metrics.maps import MapField, Undefined
from voxplain.metrics.metric import Direction, Metric, Value, register
from voxplain.targets.field import SEPARATE, predicted_mask
from voxplain.targets.scores import volume_per_voxel

Pairs = NDArray[np.bool_]
Distances = NDArray[np.float64]

_VOLUME_FACTOR = 2.0
"""Objects whose volumes differ by no more than this factor are the same prediction."""

_ALL_THE_SAME = "all cases have the same prediction, so that any explanation would be consistent"
_SHARE = "of the cells, at least one: the strongest, which are the explanation"
_CELLS = "of a coarse grid over the image, about so many"


class _SameExplanation(CrossCaseMetric, Metric):
    """Among cases with similar explanations, the share with the same prediction.

    An explanation is the set of the strongest cells of a coarse grid over the image; among cells of
    equal strength the choice is random. Subclasses say which explanations are similar.
    """

    family: ClassVar[str] = "faithfulness"
    direction: ClassVar[Direction] = "up"
    range: ClassVar[tuple[float | None, float | None]] = (0.0, 1.0)
    chance: ClassVar[str] = "share of all other cases with the same prediction"
    reference: ClassVar[str] = "Dasgupta et al., 2022"

    cells: int
    share: float

    def score(self, field: MapField, context: MetricContext) -> Value:
        """The strongest cells and the prediction, to compare with those of other cases."""
        means = coarse(field.require_informative(), self.cells)
        if means.numel() < 2:
            raise Undefined("the image has a single voxel")
        count = min(max(1, round(self.share * means.numel())), means.numel() - 1)
        draws = torch.randperm(means.numel(), generator=generator(field.key, field.name, "cells"))
        order = draws[means.flatten()[draws].argsort(descending=True, stable=True)]
        explanation = {"grid": list(means.shape), "top": sorted(order[:count].tolist())}
        return to_compare(explanation | _prediction(context))

    def compare(self, cases: Sequence[CaseSummary]) -> list[Value]:
        """Of others' cases with similar explanations, the share with the same prediction."""
        patients = np.array([case.patient for case in cases])
        others = patients[:, None] != patients
        same = _same_prediction(cases)
        if same[others].all():
            return [Value(math.nan, reason=_ALL_THE_SAME)] * len(cases)
        similar = self._similar(cases, others) & others
        return [_value(*row) for row in zip(similar, same, others, strict=True)]

    @abstractmethod
    def _similar(self, cases: Sequence[CaseSummary], others: Pairs) -> Pairs:
        """Which pairs of cases have similar explanations, ``(n, n)``."""


@register
class Consistency(_SameExplanation):
    """How often another case with the same explanation has the same prediction.

    Two explanations are the same if the same cells of a coarse grid are the strongest; by default
    one of 16 (27 in 3-D). The grid spans the image, so that all images have to show the same part
    of the body in the same frame. The prediction of a classifier is its class (of a multi-label
    one, whether the class of the target is present); that of a segmentation is whether there is an
    object of the class, and its volume up to a factor of 2. Images of the same patient are not
    compared with each other. Cases share pairs, so that intervals over cases are only rough.
    Undefined for a case whose explanation no other case has, and where all cases have the same
    prediction.
    """

    name: Literal["consistency"] = "consistency"
    cells: int = Field(default=16, ge=2, description=_CELLS)
    share: float = Field(default=0.05, gt=0, lt=1, description=_SHARE)

    def _similar(self, cases: Sequence[CaseSummary], others: Pairs) -> Pairs:
        same: Pairs = _distances(cases) == 0
        return same


@register
class Sufficiency(_SameExplanation):
    """How often another case to which the explanation applies has the same prediction.

    It applies to cases whose strongest cells are nearly the same: their Jaccard distance is among
    the smallest of all pairs, and not 1, which is nothing in common. See `consistency` for what
    counts as the same prediction. Undefined for a case whose explanation applies to no other, and
    where all cases have the same prediction.
    """

    name: Literal["sufficiency"] = "sufficiency"
    cells: int = Field(default=64, ge=2, description=_CELLS)
    share: float = Field(default=0.1, gt=0, lt=1, description=_SHARE)
    quantile: float = Field(
        default=0.1, gt=0, lt=1, description="of the distances of all pairs, up to which it applies"
    )

    def _similar(self, cases: Sequence[CaseSummary], others: Pairs) -> Pairs:
        distances = _distances(cases)
        limit = np.quantile(distances[others], self.quantile, method="inverted_cdf")
        applies: Pairs = (distances <= limit) & (distances < 1)
        return applies


def coarse(values: Tensor, cells: int) -> Tensor:
    """Means over about so many cells of equal size, as many along each axis, ``(*grid)``."""
    axes = sum(side > 1 for side in values.shape) or 1
    per_axis = max(2, round(cells ** (1 / axes)))
    grid = [min(per_axis, side) for side in values.shape]
    number = torch.zeros(values.shape, dtype=torch.long)
    for axis, (side, count) in enumerate(zip(values.shape, grid, strict=True)):
        view = [side if other == axis else 1 for other in range(values.ndim)]
        number = number * count + (torch.arange(side) * count // side).view(view)
    flat, total = number.flatten(), math.prod(grid)
    sums = torch.zeros(total, dtype=torch.float64).index_add_(
        0, flat, values.double().cpu().flatten()
    )
    return (sums / torch.bincount(flat, minlength=total)).view(grid)


def _prediction(context: MetricContext) -> dict[str, Any]:
    """What the network predicts, and how much of it (0 is none)."""
    bound, row = context.bound, context.input.row
    label, seen = bound.field.label_of(row), bound.unperturbed
    if seen.is_dense:
        per_voxel, unit = volume_per_voxel(seen)
        size = float(context.predicted.sum()) * per_voxel
        return {"says": f"class {label}, {unit}", "size": size}
    output = seen.output[row][None]
    several = output.shape[1] > 1 and bound.activation in SEPARATE
    if several and label is not None:
        present = predicted_mask(output, label, bound.activation, bound.target.threshold)
        return {"says": f"class {label}", "size": float(present)}
    return {"says": f"class {context.predicted_class}", "size": 1.0}


def _same_prediction(cases: Sequence[CaseSummary]) -> Pairs:
    """Whether two cases have the same prediction, ``(n, n)``."""
    predictions = np.array([case.summary["says"] for case in cases])
    size = np.array([float(case.summary["size"]) for case in cases])
    smaller, larger = np.minimum(size[:, None], size), np.maximum(size[:, None], size)
    same: Pairs = (predictions[:, None] == predictions) & (larger <= _VOLUME_FACTOR * smaller)
    return same


def _distances(cases: Sequence[CaseSummary]) -> Distances:
    """Jaccard distances of the strongest cells, ``(n, n)``; 1 between different grids."""
    grids = [tuple(case.summary["grid"]) for case in cases]
    strongest = np.zeros((len(cases), max(map(math.prod, grids))))
    for row, case in zip(strongest, cases, strict=True):
        row[case.summary["top"]] = 1
    common = strongest @ strongest.T
    counts = strongest.sum(axis=1)
    names = np.array([str(grid) for grid in grids])
    distances: Distances = np.where(
        names[:, None] == names, 1 - common / (counts[:, None] + counts - common), 1.0
    )
    return distances


def _value(similar: Pairs, same: Pairs, others: Pairs) -> Value:
    """The value of one case from its row of pairs."""
    facts = {
        "alike": int(similar.sum()),
        "others": int(others.sum()),
        "chance": float(same[others].mean()),
    }
    if not similar.any():
        return Value(math.nan, facts=facts, reason="no other case has the same explanation")
    return Value(float(same[similar].mean()), facts=facts)
