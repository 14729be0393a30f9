"""Infidelity: how well a map predicts the change of the score under perturbations."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from voxplain.engine.context import Context
from voxplain.engine.identity import identity
from voxplain.engine.masks import AnyFill, Mean
from voxplain.metrics.context import MetricContext, Query
from voxplain.metrics.map_field import MapField, Undefined
from voxplain.metrics.metric import Direction, Metric, Value, register
from voxplain.metrics.queries.subsets import BoxDrops, NoiseDrops, Perturbed

_SLOPES_BYTES = 256 * 2**20


class _InfidelityMetric(Metric):
    """What both forms share: changes I of the image, and <I, map> for each."""

    family: ClassVar[str] = "faithfulness"
    direction: ClassVar[Direction] = "down"
    reference: ClassVar[str] = "Yeh et al., 2019"

    perturbation: Literal["noise", "boxes"] = "noise"
    sigma: float = Field(default=0.1, gt=0, description="of the noise, of the intensity range")
    window: float = Field(default=1 / 6, gt=0, le=1, description="side of a box, of each axis")
    fill: AnyFill = Mean()
    draws: int = Field(default=64, ge=2)

    def queries(self, context: Context) -> tuple[Query, ...]:
        """One set of changes for all maps."""
        if self.perturbation == "noise":
            return (NoiseDrops(self.sigma, self.draws),)
        return (BoxDrops(self.fill, self.window, self.draws),)

    def _pairs(self, field: MapField, context: MetricContext) -> tuple[Tensor, Tensor]:
        """What the map says the score loses, and what it loses, ``(draws,)`` each."""
        field.checked  # noqa: B018 - raises for maps that say nothing
        run_query: Any = context.run_query(self.queries(context.base)[0], field)
        if isinstance(run_query, Perturbed):
            return _said(field, context, run_query), run_query.drops
        boxes, drops = run_query
        weights = _lost(field, context, self.fill, boxes.size)
        said = [weights[(..., *box)].sum() for box in boxes.boxes]
        return torch.stack(said).double().cpu(), drops


def _said(field: MapField, context: MetricContext, run_query: Perturbed) -> Tensor:
    """<I, map> for every draw, ``(draws,)``; noise is drawn once for as many maps as fit."""
    known: dict[MapField, Tensor] = context.cached(("said", identity(run_query.noise)), dict)
    if field not in known:
        others = [other for other in context.judged if other not in known and other is not field]
        at_once = max(1, _SLOPES_BYTES // (8 * context.item.image.numel()))
        fields = [field, *others][:at_once]
        slopes = torch.stack([_slopes(one, context) for one in fields])
        known.update(zip(fields, run_query.along(slopes), strict=True))
    return known[field]


def _slopes(field: MapField, context: MetricContext) -> Tensor:
    """The map per unit of intensity; a share of the score divided by the change it stands for.

    That is the intensity, or its difference from the baseline of the method. A share where the
    change is (nearly) 0 has no slope, and counts as none.
    """
    image = context.item.image.double()
    if field.start is not None:
        image = image - field.start.to(image)
    slopes = field.map.double()
    if not field.share:
        return slopes.expand_as(image)
    if len(slopes) != len(image):
        slopes = slopes / len(image)
    near = image.abs() < 1e-6 * image.abs().amax()
    return torch.where(near, torch.zeros_like(image), slopes / torch.where(near, 1.0, image))


def _lost(field: MapField, context: MetricContext, fill: Any, size: tuple[float, ...]) -> Tensor:
    """What each voxel is said to cost when it is filled, ``(*spatial)``."""
    if field.share:
        return field.values
    filled = fill.images(context.item, size)
    change = context.item.image - torch.stack(filled).mean(dim=0)
    return (field.map.double() * change.double()).sum(dim=0)


@register
class Infidelity(_InfidelityMetric):
    """How far the map is from predicting what the score loses under random changes.

    E[(<I, map> - (S(x) - S(x - I)))^2]. A map that shares out the score is divided by the
    intensity it stands for, so that <I, map> is a loss of score in either case.
    """

    range: ClassVar[tuple[float | None, float | None]] = (0.0, None)
    unit: ClassVar[str] = "score squared"
    name: Literal["infidelity"] = "infidelity"

    def score(self, field: MapField, context: MetricContext) -> Value:
        """Mean squared error."""
        said, lost = self._pairs(field, context)
        return Value(float((said - lost).square().mean()))


@register
class InfidelityNormalized(_InfidelityMetric):
    """Infidelity of the map at its best scale, as a share of what there is to predict.

    1 - E[ad]^2 / (E[a^2] E[d^2]) with a = <I, map> and d = S(x) - S(x - I).
    """

    range: ClassVar[tuple[float | None, float | None]] = (0.0, 1.0)
    chance: ClassVar[str] = "1"
    name: Literal["infidelity_normalized"] = "infidelity_normalized"

    def score(self, field: MapField, context: MetricContext) -> Value:
        """The share that no scale can explain."""
        said, lost = self._pairs(field, context)
        size = float(said.square().mean() * lost.square().mean())
        if size == 0:
            raise Undefined("the score, or what the map says of it, does not change")
        scale = float((said * lost).mean() / said.square().mean())
        value = 1 - float((said * lost).mean()) ** 2 / size
        return Value(min(1.0, max(0.0, value)), facts={"scale": scale})
