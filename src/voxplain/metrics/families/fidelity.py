"""Fidelity after Brocki et al. (2022) and the INFORM study, and ROAD in any dimension."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from voxplain.engine.baselines import baseline_image
from voxplain.engine.context import Context
from voxplain.engine.masks import Blur, Constant, Fill, Mean, Noise
from voxplain.metrics.context import MapQuery, MetricContext
from voxplain.metrics.curves import area, normalized
from voxplain.metrics.maps import MapField, Undefined
from voxplain.metrics.metric import Direction, Metric, Value, register
from voxplain.metrics.perturbed import PerturbedPrediction
from voxplain.metrics.queries.removal import Order, Removal, Shares

Protocol = Literal["inform", "brocki2022", "thesis2024"]
_LEVELS: dict[str, int] = {"inform": 40, "brocki2022": 40, "thesis2024": 100}


@register
class Fidelity(Metric):
    """How much longer the prediction lasts when the least relevant voxels are removed first.

    F = AUC(least first) - AUC(most first) of the accuracy over the replaced share: areas under
    curves that are 1 while the image keeps its class and 0 after. For segmentations the Dice with
    the predicted object takes the place of the accuracy. Publications print 10 F (Brocki et al.,
    2022). Values of different protocols are not comparable.

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

    def queries(self, context: Context) -> tuple[MapQuery, ...]:
        """Both orders per fill.

        Which fill the accuracy curve has depends on the predicted class, so that the dark one
        stands for either.
        """
        if self.protocol == "thesis2024":
            fills = self._four_fills("mean")
        else:
            fills = (*self._graded_fills, self._fill(dark=True))
        return tuple(self._removal(fill, order) for fill in fills for order in ("most", "least"))

    def score(self, field: MapField, context: MetricContext) -> Value:
        """The difference of the accuracy areas; other differences in the facts."""
        if self.protocol == "thesis2024":
            names = ("dark", "half", "bright", "mean")
            fills = self._four_fills(self._half_bright(context.input.image))
            gaps = {
                name: self._gap(fill, field, context)
                for name, fill in zip(names, fills, strict=True)
            }
            return Value(sum(gaps.values()) / len(gaps), facts=gaps)
        dark = _predicts_class_one(context)
        gap = self._gap(self._fill(dark), field, context)
        graded = {
            f"score_{fill.kind}": self._graded_gap(fill, field, context)
            for fill in self._graded_fills
        }
        return Value(gap, facts={"fill": "dark" if dark else "bright", **graded})

    @property
    def _graded_fills(self) -> tuple[Fill, ...]:
        """Fills whose probability curves are in the facts."""
        return (Blur(), Mean()) if self.protocol == "inform" else ()

    def _four_fills(self, half: Any) -> tuple[Fill, ...]:
        """Dark, half bright, bright and the mean.

        Args:
            half: A baseline; any will do to count forwards, where there is no image yet.
        """
        return (self._fill(dark=True), Constant(value=half), self._fill(dark=False), Mean())

    def _half_bright(self, image: Tensor) -> tuple[float, ...]:
        """The intensity half way from dark to bright, per channel."""
        ends = [baseline_image(level, image) for level in (self.dark, self.bright)]
        return tuple(((ends[0] + ends[1]) / 2).flatten(1)[:, 0].tolist())

    def _fill(self, dark: bool) -> Fill:
        return Constant(value=self.dark if dark else self.bright)

    def _removal(self, fill: Fill, order: Order) -> Removal:
        return Removal(fill, order, _LEVELS[self.protocol])

    def _gap(self, fill: Fill, field: MapField, context: MetricContext) -> float:
        """Area under what is kept of the prediction, least first minus most first."""
        most, least = (
            area(_kept(context.run_map_query(self._removal(fill, order), field)))
            for order in ("most", "least")
        )
        return least - most

    def _graded_gap(self, fill: Fill, field: MapField, context: MetricContext) -> float:
        """The same of the normalized score; NaN where there is no scale for it."""
        curves: list[Tensor] = [
            context.run_map_query(self._removal(fill, order), field).scores
            for order in ("most", "least")
        ]
        try:
            most, least = (
                area(normalized(scores, context.score, float(scores[-1]))) for scores in curves
            )
        except Undefined:
            return math.nan
        return least - most


def _kept(predictions: PerturbedPrediction) -> Tensor:
    """1 while a classifier keeps its class, or the Dice with the predicted object, ``(n,)``."""
    kept = predictions.agreed if predictions.agreed is not None else predictions.overlap
    if kept is None:
        raise Undefined(
            "the target is neither a class nor an object, so it has no prediction to keep"
        )
    return kept.double()


def _predicts_class_one(context: MetricContext) -> bool:
    """Whether the image is predicted as class 1, which a dark fill speaks against."""
    return context.bound.unperturbed.is_dense or context.predicted_class > 0


_SMALLEST_SCORE = 1e-3
"""A score below this share of the largest output is no scale for changes of the score."""


@register
class Road(Metric):
    """How the score falls when the most relevant voxels are imputed from their neighbors.

    Mean over the removed shares of the score relative to that of the image, most relevant first
    (Rong et al., 2022). The imputation solves a linear system in any dimension, so that no edge of
    a hole tells the network what was there. The gap to the reversed order is in the facts.
    """

    family: ClassVar[str] = "faithfulness"
    direction: ClassVar[Direction] = "down"
    reference: ClassVar[str] = "Rong et al., 2022"
    name: Literal["road"] = "road"
    shares: Shares = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
    noise: float = Field(default=0.01, ge=0, description="of the intensity range")

    def queries(self, context: Context) -> tuple[MapQuery, ...]:
        return tuple(
            Removal(Noise(sigma=self.noise), order, at=self.shares) for order in ("most", "least")
        )

    def score(self, field: MapField, context: MetricContext) -> Value:
        changes: list[Tensor] = [
            context.run_map_query(query, field).scores - context.score
            for query in self.queries(context.engine)
        ]
        # By the image alone, so that the score exists for all maps or for none.
        seen = context.bound.unperturbed.output[context.input.row]
        scale, largest = abs(context.score), float(seen.abs().amax())
        if scale <= _SMALLEST_SCORE * largest:
            raise Undefined(
                "the score of the image is too close to 0 to normalize its changes by it"
            )
        most, least = (change / scale + 1 for change in changes)
        points = tuple(zip(self.shares, most.tolist(), strict=True))
        return Value(float(most.mean()), points, {"gap": float((least - most).mean())})
