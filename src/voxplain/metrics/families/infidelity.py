"""Infidelity: how well a map predicts the change of the score under perturbations."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from voxplain.engine.context import Context
from voxplain.engine.identity import identity
from voxplain.engine.masks import AnyFill, Boxes, Fill, Mean
from voxplain.metrics.context import MetricContext, Query
from voxplain.metrics.maps import MapField, Undefined
from voxplain.metrics.metric import Direction, Metric, Value, register
from voxplain.metrics.queries.subsets import BoxDrops, NoiseDrops, NoisyDrops

_SLOPES_BYTES = 256 * 2**20
"""How many bytes of maps are multiplied with noise at once."""


class _InfidelityMetric(Metric):
    """Compares <I, map> with S(x) - S(x - I) for random changes I of the image."""

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

    def _predicted_and_actual(
        self, field: MapField, context: MetricContext
    ) -> tuple[Tensor, Tensor]:
        """The loss of score that the map predicts, and the actual loss, ``(draws,)`` each."""
        field.require_informative()
        (query,) = self.queries(context.engine)
        if self.perturbation == "noise":
            noisy: NoisyDrops = context.run_query(query)
            return _predicted_under_noise(field, context, noisy), noisy.drops
        result: tuple[Boxes, Tensor] = context.run_query(query)
        boxes, drops = result
        losses = predicted_losses(field, context, self.fill, boxes.size)
        predicted = [losses[box].sum() for box in boxes.boxes]
        return torch.stack(predicted).double().cpu(), drops


@register
class Infidelity(_InfidelityMetric):
    """How far the map is from predicting the loss of score under random changes.

    E[(<I, map> - (S(x) - S(x - I)))^2]. A map that divides up the score is divided by the
    intensity first, so that <I, map> is a loss of score in either case.
    """

    range: ClassVar[tuple[float | None, float | None]] = (0.0, None)
    unit: ClassVar[str] = "score squared"
    name: Literal["infidelity"] = "infidelity"

    def score(self, field: MapField, context: MetricContext) -> Value:
        predicted, actual = self._predicted_and_actual(field, context)
        return Value(float((predicted - actual).square().mean()))


@register
class InfidelityNormalized(_InfidelityMetric):
    """Infidelity of the map at its best scale, as a share of what there is to predict.

    1 - E[ad]^2 / (E[a^2] E[d^2]) with a = <I, map> and d = S(x) - S(x - I).
    """

    range: ClassVar[tuple[float | None, float | None]] = (0.0, 1.0)
    chance: ClassVar[str] = "1"
    name: Literal["infidelity_normalized"] = "infidelity_normalized"

    def score(self, field: MapField, context: MetricContext) -> Value:
        predicted, actual = self._predicted_and_actual(field, context)
        size = float(predicted.square().mean() * actual.square().mean())
        if size == 0:
            raise Undefined(
                "the changes of the score, or those that the map predicts, are all zero"
            )
        product = (predicted * actual).mean()
        scale = float(product / predicted.square().mean())
        value = 1 - float(product) ** 2 / size
        return Value(min(1.0, max(0.0, value)), facts={"scale": scale})


def _predicted_under_noise(field: MapField, context: MetricContext, noisy: NoisyDrops) -> Tensor:
    """<I, map> for every draw, ``(draws,)``; noise is drawn once for as many maps as fit."""
    key = ("infidelity", identity(noisy.query))
    products: dict[MapField, Tensor] = context.cached(key, dict)
    if field not in products:
        others = [
            other for other in context.all_fields if other not in products and other is not field
        ]
        at_once = max(1, _SLOPES_BYTES // (8 * context.input.image.numel()))
        fields = [field, *others][:at_once]
        slopes = torch.stack([_slopes(other_field, context) for other_field in fields])
        products.update(zip(fields, noisy.products(slopes), strict=True))
    return products[field]


def _slopes(field: MapField, context: MetricContext) -> Tensor:
    """The map per unit of intensity, ``(C, *spatial)`` float64.

    A share of the score is divided by the change it stands for: the intensity, or its difference
    from the baseline of the method. Where that is nearly 0 the slope counts as 0.
    """
    change = context.input.image.double()
    if field.start is not None:
        change = change - field.start.to(change)
    slopes = field.map.double()
    if not field.share:
        return slopes.expand_as(change)
    if len(slopes) != len(change):
        slopes = slopes / len(change)
    near_zero = change.abs() < 1e-6 * change.abs().amax()
    quotients = slopes / torch.where(near_zero, 1.0, change)
    return torch.where(near_zero, torch.zeros_like(change), quotients)


def predicted_losses(
    field: MapField, context: MetricContext, fill: Fill, size: tuple[float, ...]
) -> Tensor:
    """The loss of score that a map predicts for filling each voxel, ``(*spatial)``.

    Args:
        field: The map.
        context: The image.
        fill: What removed voxels become.
        size: Voxels per axis of what is removed at once.
    """
    if field.share:
        return field.values
    filled = fill.images(context.input, size)
    change = context.input.image - torch.stack(filled).mean(dim=0)
    return (field.map.double() * change.double()).sum(dim=0)
