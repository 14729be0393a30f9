"""Segmentation: what happens to the predicted object, and where the map lies around it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from voxplain.engine.context import Context
from voxplain.engine.masks import AnyFill, Blur
from voxplain.metrics.context import MapQuery, MetricContext
from voxplain.metrics.curves import area
from voxplain.metrics.families.localization import average_precision, compared_part, voxel_sides
from voxplain.metrics.maps import MapField, Undefined
from voxplain.metrics.metric import Direction, Metric, Value, register
from voxplain.metrics.perturbed import PerturbedPrediction
from voxplain.metrics.queries.removal import Removal, shares
from voxplain.metrics.queries.voxel_sets import dilated, distance
from voxplain.targets import ErrorRegion
from voxplain.targets.scores import volume_per_voxel


class _Segmentation(Metric):
    """A metric for dense outputs."""

    family: ClassVar[str] = "segmentation"
    range: ClassVar[tuple[float | None, float | None]] = (0.0, 1.0)


class _ObjectRemoval(_Segmentation):
    """The predicted object while voxels are removed, the most relevant first."""

    fill: AnyFill = Blur()

    @property
    @abstractmethod
    def _removal(self) -> Removal:
        """Which voxels are removed."""

    def queries(self, context: Context) -> tuple[MapQuery, ...]:
        return (self._removal,)

    def _predictions(self, field: MapField, context: MetricContext) -> PerturbedPrediction:
        """The prediction after each step, of images with a predicted object."""
        predictions: PerturbedPrediction = context.run_map_query(self._removal, field)
        if predictions.overlap is None or not bool(context.predicted.any()):
            raise Undefined("there is no predicted object that could change")
        return predictions


@register
class DiceDrop(_ObjectRemoval):
    """How fast the predicted object dissolves while the most relevant voxels are removed.

    1 - area under the Dice with the object on the unchanged image, over the removed share.
    """

    direction: ClassVar[Direction] = "up"
    name: Literal["dice_drop"] = "dice_drop"
    levels: int = Field(default=32, ge=1)

    @property
    def _removal(self) -> Removal:
        return Removal(self.fill, "most", self.levels)

    def score(self, field: MapField, context: MetricContext) -> Value:
        overlap = self._predictions(field, context).overlap
        assert overlap is not None
        points = tuple(zip(shares(self.levels), overlap.tolist(), strict=True))
        return Value(1 - area(overlap), points)


@register
class VolumeChange(_ObjectRemoval):
    """How the volume of the predicted object changes when the top 5 % is removed.

    Volume after minus before, in mL (cm² in 2-D, voxels where the physical size is unknown).
    """

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
        volume = self._predictions(field, context).volume
        assert volume is not None
        voxel, unit = volume_per_voxel(context.bound.unperturbed)
        before = voxel * float(context.predicted.sum())
        change = float(volume[0]) - before
        return Value(change, facts={"relative": change / before, "unit": unit})


@register
class ContextShare(_Segmentation):
    """The share of the map that lies outside the predicted object.

    The share beyond the margin around the object is in the facts.
    """

    direction: ClassVar[Direction] = "none"
    name: Literal["context_share"] = "context_share"
    margin: float = Field(default=10.0, ge=0, description="mm around the object")

    def score(self, field: MapField, context: MetricContext) -> Value:
        inside = _predicted_object(context)
        near = dilated(inside, self.margin, context.spacing)
        beyond = _share_outside(field, near)
        return Value(_share_outside(field, inside), facts={"beyond_margin": beyond})


@register
class BoundaryShare(_Segmentation):
    """The share of the map that lies near the boundary of the predicted object.

    Within the margin on either side; on voxels larger than the margin, in the voxels on either
    side of the boundary.
    """

    direction: ClassVar[Direction] = "none"
    name: Literal["boundary_share"] = "boundary_share"
    margin: float = Field(default=3.0, gt=0, description="mm on either side")

    def score(self, field: MapField, context: MetricContext) -> Value:
        field.require_informative()
        inside = _predicted_object(context)
        margin = max(self.margin, *voxel_sides(context))
        distances = distance(inside, context.spacing) + distance(~inside, context.spacing)
        if float(distances.amax()) <= margin:
            raise Undefined(f"the whole image lies within {margin:g} mm of the boundary")
        return Value(1 - _share_outside(field, distances <= margin))


def _share_outside(field: MapField, inside: Tensor) -> float:
    """The share of the magnitude that lies outside a set of voxels."""
    magnitudes = field.require_informative().abs()
    return float(magnitudes[~inside.to(magnitudes.device)].sum()) / float(magnitudes.sum())


def _predicted_object(context: MetricContext) -> Tensor:
    """The predicted object on the voxels of the image, neither empty nor everything."""
    inside = context.place.on_image(context.predicted)
    if not bool(inside.any()) or bool(inside.all()):
        raise Undefined("the predicted object is empty or fills the image")
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
        field.require_informative()
        wrong = _wrong_voxels(context).to(field.values.device)
        compared = compared_part(field, context)
        precision = average_precision(compared, context.counted(wrong))
        return replace(precision, facts={**precision.facts, "voxels": int(wrong.sum())})


def _wrong_voxels(context: MetricContext) -> Tensor:
    """Where the prediction is wrong in the way that is explained, ``(*spatial)`` bool.

    These are the voxels where the weight field of an error target is not 0.
    """
    if not isinstance(context.bound.target, ErrorRegion):
        raise Undefined("the target is not an error; explain one with a target error_region")
    (term,) = context.bound.field.rows([context.input.row]).terms
    wrong = (term.weights[0] != 0).any(dim=0)
    wrong = context.place.on_image(wrong)
    if context.ignored is not None:
        wrong = wrong & ~context.ignored.to(wrong.device)
        if not bool(wrong.any()):
            raise Undefined("the reference says nothing of the voxels of the error")
    if bool(wrong.all()):
        raise Undefined("the error region fills the image")
    return wrong
