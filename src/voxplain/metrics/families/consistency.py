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
from voxplain.metrics.cross_case import CaseSummary, CrossCaseMetric
from voxplain.metrics.map_field import MapField, Undefined
from voxplain.metrics.metric import Direction, Value, register
from voxplain.targets.links import predicted_mask, settled
from voxplain.targets.scores import volume_per_voxel

Pairs = NDArray[np.bool_]
Distances = NDArray[np.float64]

_FACTOR = 2.0
"""Objects whose volumes differ by no more than this factor are the same prediction."""

_ALL_THE_SAME = "all cases have the same prediction, so that any explanation would be consistent"
_SHARE = "of the cells, at least one: the strongest, which are the explanation"


class _SameExplanation(CrossCaseMetric):
    """The share of alike cases with the same prediction; subclasses say which cases are alike.

    An explanation is which cells of a coarse grid over the image are the strongest. Of cells of
    equal strength some are drawn at random.
    """

    family: ClassVar[str] = "faithfulness"
    direction: ClassVar[Direction] = "up"
    range: ClassVar[tuple[float | None, float | None]] = (0.0, 1.0)
    chance: ClassVar[str] = "share of all other cases with the same prediction"
    reference: ClassVar[str] = "Dasgupta et al., 2022"

    cells: int
    share: float

    def sketch(self, field: MapField, context: MetricContext) -> dict[str, Any]:
        """The strongest cells, and what is predicted."""
        means = coarse(field.checked, self.cells)
        if means.numel() < 2:
            raise Undefined("the image has a single voxel")
        count = min(max(1, round(self.share * means.numel())), means.numel() - 1)
        draws = torch.randperm(means.numel(), generator=generator(field.key, field.name, "cells"))
        order = draws[means.flatten()[draws].argsort(descending=True, stable=True)]
        return {"grid": list(means.shape), "top": sorted(order[:count].tolist())} | _said(context)

    def conclude(self, cases: Sequence[CaseSummary]) -> list[Value]:
        """Of the other patients' cases that are alike, the share with the same prediction."""
        whose = np.array([case.patient for case in cases])
        others = whose[:, None] != whose
        same = _same_prediction(cases)
        if same[others].all():
            return [Value(math.nan, reason=_ALL_THE_SAME)] * len(cases)
        alike = self._alike(cases, others) & others
        return [_value(*row) for row in zip(alike, same, others, strict=True)]

    @abstractmethod
    def _alike(self, cases: Sequence[CaseSummary], others: Pairs) -> Pairs:
        """Which pairs of cases have the same explanation, ``(n, n)``."""


def coarse(values: Tensor, cells: int) -> Tensor:
    """Means over about so many cells of equal size, as many along each axis, ``(*grid)``."""
    axes = sum(side > 1 for side in values.shape) or 1
    along = max(2, round(cells ** (1 / axes)))
    grid = [min(along, side) for side in values.shape]
    number = torch.zeros(values.shape, dtype=torch.long)
    for axis, (side, count) in enumerate(zip(values.shape, grid, strict=True)):
        view = [side if other == axis else 1 for other in range(values.ndim)]
        number = number * count + (torch.arange(side) * count // side).view(view)
    flat, total = number.flatten(), math.prod(grid)
    sums = torch.zeros(total, dtype=torch.float64).index_add_(
        0, flat, values.double().cpu().flatten()
    )
    return (sums / torch.bincount(flat, minlength=total)).view(grid)


_CELLS = "of a coarse grid over the image, about so many"


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

    def _alike(self, cases: Sequence[CaseSummary], others: Pairs) -> Pairs:
        same: Pairs = _distances(cases) == 0
        return same


@register
class Sufficiency(_SameExplanation):
    """How often another case to which the explanation applies has the same prediction.

    It applies to cases whose strongest cells are nearly the same: their Jaccard distance is among
    the smallest of all pairs, and not 1, which is nothing in common. What counts as a prediction
    is told at `consistency`. Undefined for a case whose explanation applies to no other, and where
    all cases have the same prediction.
    """

    name: Literal["sufficiency"] = "sufficiency"
    cells: int = Field(default=64, ge=2, description=_CELLS)
    share: float = Field(default=0.1, gt=0, lt=1, description=_SHARE)
    quantile: float = Field(
        default=0.1, gt=0, lt=1, description="of the distances of all pairs, up to which it applies"
    )

    def _alike(self, cases: Sequence[CaseSummary], others: Pairs) -> Pairs:
        distances = _distances(cases)
        far = np.quantile(distances[others], self.quantile, method="inverted_cdf")
        applies: Pairs = (distances <= far) & (distances < 1)
        return applies


def _said(context: MetricContext) -> dict[str, Any]:
    """What the network predicts: of what, and how much of it (0 is none)."""
    bound = context.bound
    label, seen = bound.field.label_of(context.item.row), bound.seen
    if seen.is_dense:
        per_voxel, unit = volume_per_voxel(seen)
        size = float(context.predicted.sum()) * per_voxel
        return {"says": f"class {label}, {unit}", "size": size}
    row, target = seen.output[context.item.row][None], bound.target
    several = row.shape[1] > 1 and settled(target.activation, row.shape[1]) == "sigmoid"
    if several and label is not None:
        present = predicted_mask(row, label, target.activation, target.threshold)
        return {"says": f"class {label}", "size": float(present)}
    return {"says": f"class {context.predicted_class}", "size": 1.0}


def _same_prediction(cases: Sequence[CaseSummary]) -> Pairs:
    """Whether two cases have the same prediction, ``(n, n)``."""
    says = np.array([case.sketch["says"] for case in cases])
    size = np.array([float(case.sketch["size"]) for case in cases])
    smaller, larger = np.minimum(size[:, None], size), np.maximum(size[:, None], size)
    same: Pairs = (says[:, None] == says) & (larger <= _FACTOR * smaller)
    return same


def _distances(cases: Sequence[CaseSummary]) -> Distances:
    """Jaccard distances of the strongest cells, ``(n, n)``; 1 between different grids."""
    grids = [tuple(case.sketch["grid"]) for case in cases]
    held = np.zeros((len(cases), max(map(math.prod, grids))))
    for row, case in zip(held, cases, strict=True):
        row[case.sketch["top"]] = 1
    both = held @ held.T
    counts = held.sum(axis=1)
    names = np.array([str(grid) for grid in grids])
    distances: Distances = np.where(
        names[:, None] == names, 1 - both / (counts[:, None] + counts - both), 1.0
    )
    return distances


def _value(alike: Pairs, same: Pairs, others: Pairs) -> Value:
    """The value of one case from its row of pairs."""
    facts = {
        "alike": int(alike.sum()),
        "others": int(others.sum()),
        "chance": float(same[others].mean()),
    }
    if not alike.any():
        return Value(math.nan, facts=facts, reason="no other case has the same explanation")
    return Value(float(same[alike].mean()), facts=facts)
