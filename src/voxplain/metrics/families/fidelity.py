"""Fidelity after Brocki et al. (2022) and the INFORM study, and ROAD in any dimension."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from voxplain.engine.baselines import baseline_image
from voxplain.engine.context import Context
from voxplain.engine.masks import Blur, Constant, Fill, Mean, Noise
from voxplain.metrics.context import MetricContext, Query
from voxplain.metrics.curves import area, normalized
from voxplain.metrics.map_field import MapField, Undefined
from voxplain.metrics.metric import Direction, Metric, Value, register
from voxplain.metrics.perturbed import PerturbedPrediction
from voxplain.metrics.queries.removal import Order, Removal, Shares

Protocol = Literal["inform", "brocki2022", "thesis2024"]
_LEVELS: dict[str, int] = {"inform": 40, "brocki2022": 40, "thesis2024": 100}


@register
class Fidelity(Metric):
    """How much longer the prediction lasts when the least relevant voxels go first.

    F = AUC(least first) - AUC(most first) of the accuracy over the replaced share: the mean of
    curves that are 1 while the image keeps its class and 0 after. For segmentations the Dice with
    the predicted object takes the place of the accuracy. Publications print 10 F. Brocki et al.,
    2022; the protocols are never mixed.

    Attributes:
        protocol: ``brocki2022``: 40 levels, filled dark for class 1 and bright for class 0;
            ``inform``: the same, with the probability under blur and mean fills in the facts;
            ``thesis2024``: 100 levels, mean over dark, half, bright and mean fills.
        dark: Intensity of "black" in the space of the network.
        bright: Intensity of "white".
    """

    family: ClassVar[str] = "faithfulness"
    direction: ClassVar[Direction] = "up"
    range: ClassVar[tuple[float | None, float | None]] = (-1.0, 1.0)
    chance: ClassVar[str] = "0"
    reference: ClassVar[str] = "Brocki et al., 2022"
    name: Literal["fidelity"] = "fidelity"
    protocol: Protocol = "inform"
    dark: float | Literal["minimum"] = "minimum"
    bright: float | Literal["maximum"] = "maximum"

    def queries(self, context: Context) -> tuple[Query, ...]:
        """Both orders per fill; the fill of the accuracy curve depends on the predicted class."""
        fills = self._neutral if self.protocol != "thesis2024" else self._all("mean")
        several = (*fills, self._filled(dark=True)) if self.protocol != "thesis2024" else fills
        return tuple(self._removal(fill, order) for fill in several for order in ("most", "least"))

    def score(self, field: MapField, context: MetricContext) -> Value:
        """The accuracy form; the others in the facts."""
        if self.protocol == "thesis2024":
            names = ("dark", "half", "bright", "mean")
            fills = self._all(self._between(context.item.image))
            parts = {
                name: self._gap(fill, field, context)
                for name, fill in zip(names, fills, strict=True)
            }
            return Value(sum(parts.values()) / len(parts), facts=parts)
        fill = self._filled(dark=_says_yes(context))
        facts = {"fill": "dark" if _says_yes(context) else "bright"}
        value = self._gap(fill, field, context)
        if self.protocol == "brocki2022":
            return Value(value, facts=facts)
        graded = {
            f"score_{fill.kind}": self._graded(fill, field, context) for fill in self._neutral
        }
        return Value(value, facts={**facts, **graded})

    @property
    def _neutral(self) -> tuple[Fill, ...]:
        return (Blur(), Mean()) if self.protocol == "inform" else ()

    def _all(self, half: Any) -> tuple[Fill, ...]:
        """Dark, half bright, bright and the mean.

        Args:
            half: A baseline; a plan, which knows no image, may name any.
        """
        return (self._filled(dark=True), Constant(value=half), self._filled(dark=False), Mean())

    def _between(self, image: Tensor) -> tuple[float, ...]:
        """Half way from dark to bright, per channel."""
        ends = [baseline_image(level, image) for level in (self.dark, self.bright)]
        return tuple(((ends[0] + ends[1]) / 2).flatten(1)[:, 0].tolist())

    def _filled(self, dark: bool) -> Fill:
        return Constant(value=self.dark if dark else self.bright)

    def _removal(self, fill: Fill, order: Order) -> Removal:
        return Removal(fill, order, _LEVELS[self.protocol])

    def _gap(self, fill: Fill, field: MapField, context: MetricContext) -> float:
        """AUC of what is left of the prediction, least first minus most first."""
        most, least = (
            area(_kept(context.run_query(self._removal(fill, order), field)))
            for order in ("most", "least")
        )
        return least - most

    def _graded(self, fill: Fill, field: MapField, context: MetricContext) -> float:
        """The gap of the normalized score; NaN where there is no scale for it."""
        asked = (self._removal(fill, order) for order in ("most", "least"))
        seen: list[Tensor] = [context.run_query(query, field).scores for query in asked]
        try:
            most, least = (
                area(normalized(scores, context.whole, float(scores[-1]))) for scores in seen
            )
        except Undefined:
            return math.nan
        return least - most


def _kept(observed: PerturbedPrediction) -> Tensor:
    kept = observed.agreed if observed.agreed is not None else observed.overlap
    if kept is None:
        raise Undefined("the target is neither a class nor an object whose prediction could last")
    return kept.double()


def _says_yes(context: MetricContext) -> bool:
    """Whether the image is predicted as class 1, which a dark fill speaks against."""
    seen = context.bound.seen
    if seen.is_dense:
        return True
    output = seen.output[context.item.row]
    return bool(output[0] > 0) if len(output) == 1 else int(output.argmax()) > 0


@register
class Road(Metric):
    """How the score falls when the most relevant voxels are imputed from their neighbors.

    Mean normalized score over the removed shares, most relevant first; the imputation solves a
    linear system in any dimension, so that no edge of a hole tells the network what was there
    (Rong et al., 2022). The gap to the reversed order is in the facts.
    """

    family: ClassVar[str] = "faithfulness"
    direction: ClassVar[Direction] = "down"
    reference: ClassVar[str] = "Rong et al., 2022"
    name: Literal["road"] = "road"
    shares: Shares = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
    noise: float = Field(default=0.01, ge=0, description="of the intensity range")

    def queries(self, context: Context) -> tuple[Query, ...]:
        """Both orders."""
        return tuple(self._probe(order) for order in ("most", "least"))

    def score(self, field: MapField, context: MetricContext) -> Value:
        """Mean score relative to that of the image, most relevant first."""
        seen = {
            order: context.run_query(self._probe(order), field).scores
            for order in ("most", "least")
        }
        changes = [scores - context.whole for scores in seen.values()]
        scale, largest = abs(context.whole), float(torch.stack(changes).abs().amax())
        if scale <= 0.1 * largest or scale == 0:
            raise Undefined("the score of the image is near 0, which is no scale for its changes")
        most, least = (change / scale + 1 for change in changes)
        points = tuple(zip(self.shares, most.tolist(), strict=True))
        return Value(float(most.mean()), points, {"gap": float((least - most).mean())})

    def _probe(self, order: Order) -> Query:
        return Removal(Noise(sigma=self.noise), order, at=self.shares)


__all__ = ["Fidelity", "Road"]
