"""Metrics for segmentations: what happens to the predicted object, and where the evidence lies."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from voxplain.engine.context import Context
from voxplain.engine.masks import AnyFill, Blur
from voxplain.metrics.context import MetricContext, Query
from voxplain.metrics.curves import area
from voxplain.metrics.families.localization import average_precision, sides
from voxplain.metrics.map_field import MapField, Undefined
from voxplain.metrics.metric import Direction, Metric, Value, register
from voxplain.metrics.perturbed import PerturbedPrediction
from voxplain.metrics.queries.removal import Removal, shares
from voxplain.metrics.queries.voxel_sets import dilated, distance
from voxplain.targets import ErrorRegion
from voxplain.targets.scores import volume_per_voxel


class _Segmentation(Metric):
    family: ClassVar[str] = "segmentation"
    range: ClassVar[tuple[float | None, float | None]] = (0.0, 1.0)


class _OnRemoval(_Segmentation):
    fill: AnyFill = Blur()

    @property
    @abstractmethod
    def _removal(self) -> Removal:
        """What is removed, most relevant first."""

    def queries(self, context: Context) -> tuple[Query, ...]:
        """Removal, most relevant first."""
        return (self._removal,)

    def _observed(self, field: MapField, context: MetricContext) -> PerturbedPrediction:
        found: PerturbedPrediction = context.run_query(self._removal, field)
        if found.overlap is None or not bool(context.predicted.any()):
            raise Undefined("there is no predicted object that could change")
        return found


@register
class DiceDrop(_OnRemoval):
    """How fast the predicted object dissolves while the most relevant voxels are removed.

    1 - mean Dice with the object on the unchanged image, over the removed share.
    """

    direction: ClassVar[Direction] = "up"
    name: Literal["dice_drop"] = "dice_drop"
    levels: int = Field(default=32, ge=1)

    @property
    def _removal(self) -> Removal:
        """Shared with deletion."""
        return Removal(self.fill, "most", self.levels)

    def score(self, field: MapField, context: MetricContext) -> Value:
        """1 - area under the Dice curve."""
        overlap = self._observed(field, context).overlap
        assert overlap is not None
        points = tuple(zip(shares(self.levels), overlap.tolist(), strict=True))
        return Value(1 - area(overlap), points)


@register
class VolumeChange(_OnRemoval):
    """How the volume of the predicted object changes when the top 5 % is removed."""

    direction: ClassVar[Direction] = "none"
    range: ClassVar[tuple[float | None, float | None]] = (None, None)
    unit: ClassVar[str] = "mL"
    name: Literal["volume_change"] = "volume_change"
    share: float = Field(default=0.05, gt=0, le=1)

    @property
    def _removal(self) -> Removal:
        """One forward: an object may be gone long before the next level of a curve."""
        return Removal(self.fill, "most", at=(self.share,))

    def score(self, field: MapField, context: MetricContext) -> Value:
        """Volume after minus before."""
        volume = self._observed(field, context).volume
        assert volume is not None
        each, unit = volume_per_voxel(context.bound.seen)
        before = each * float(context.predicted.sum())
        change = float(volume[0]) - before
        return Value(change, facts={"relative": change / before, "unit": unit})


def _share_outside(field: MapField, inside: Tensor) -> float:
    sizes = field.checked.abs()
    return float(sizes[~inside.to(sizes.device)].sum()) / float(sizes.sum())


@register
class ContextShare(_Segmentation):
    """The share of the map that lies outside the predicted object: context."""

    direction: ClassVar[Direction] = "none"
    name: Literal["context_share"] = "context_share"
    margin: float = Field(default=10.0, ge=0, description="mm around the object")

    def score(self, field: MapField, context: MetricContext) -> Value:
        """Outside the object; beyond the margin in the facts."""
        inside = _object(context)
        far = dilated(inside, self.margin, context.spacing)
        return Value(
            _share_outside(field, inside), facts={"beyond_margin": _share_outside(field, far)}
        )


@register
class BoundaryShare(_Segmentation):
    """The share of the map that lies near the boundary of the predicted object.

    On voxels larger than the margin: in the voxels on either side of the boundary.
    """

    direction: ClassVar[Direction] = "none"
    name: Literal["boundary_share"] = "boundary_share"
    margin: float = Field(default=3.0, gt=0, description="mm on either side")

    def score(self, field: MapField, context: MetricContext) -> Value:
        """Within the margin on either side."""
        field.checked  # noqa: B018 - raises for maps that say nothing
        inside = _object(context)
        margin = max(self.margin, *sides(context))
        away = distance(inside, context.spacing) + distance(~inside, context.spacing)
        if float(away.amax()) <= margin:
            raise Undefined(f"the whole image lies within {margin:g} mm of the boundary")
        return Value(1 - _share_outside(field, away <= margin))


def _object(context: MetricContext) -> Tensor:
    inside = context.predicted
    if tuple(inside.shape) != context.base.shape:
        raise Undefined("the output has another resolution than the image")
    if not bool(inside.any()) or bool(inside.all()):
        raise Undefined("the predicted object is empty, or everything")
    return inside


@register
class ErrorLocalization(_Segmentation):
    """Whether the map of an error points at that error: average precision against its voxels.

    For targets ``error_region``; the voxels are those of their ``error``, false positives or
    misses of the class.
    """

    direction: ClassVar[Direction] = "up"
    chance: ClassVar[str] = "share of the error"
    name: Literal["error_localization"] = "error_localization"

    def score(self, field: MapField, context: MetricContext) -> Value:
        """Average precision."""
        field.checked  # noqa: B018 - raises for maps that say nothing
        wrong = _error(context).to(field.values.device)
        found = average_precision(field, wrong)
        return replace(found, facts={**found.facts, "voxels": int(wrong.sum())})


def _error(context: MetricContext) -> Tensor:
    """Where the prediction is wrong in the way that is explained, ``(*spatial)`` bool.

    An error target weighs its class where that is so, and nowhere else.
    """
    if not isinstance(context.bound.target, ErrorRegion):
        raise Undefined("the target is not an error; explain one with a target error_region")
    (term,) = context.bound.field.rows([context.item.row]).terms
    wrong = (term.weights[0] != 0).any(dim=0)
    if tuple(wrong.shape) != context.base.shape:
        raise Undefined("the output has another resolution than the image")
    if bool(wrong.all()):
        raise Undefined("every voxel is wrong in this way")
    return wrong
