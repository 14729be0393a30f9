"""The prediction of a network for changed versions of one image."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from voxplain.engine.context import BoundTarget, Context
from voxplain.engine.execution.trial import (
    SCORES_TRIED,
    in_words,
    is_refused,
    least_agreement,
    of_scores,
    spread,
)
from voxplain.engine.masks import Fill, Masks, Painter
from voxplain.engine.memory import ForwardBudget, in_batches
from voxplain.engine.passes.base import Passes
from voxplain.engine.passes.points import Points
from voxplain.engine.stream_io import StreamInput
from voxplain.errors import VoxplainWarning
from voxplain.metrics.perturbed import PerturbedPrediction, predicted_object
from voxplain.models.precision import HALF, LOW, Precision


class ImagePredictor:
    """Predicts changed versions of one image, in the precision in which scores agree.

    Attributes:
        engine: The engine's context: the network, the image on its grid, layers and regions.
        input: The image as the network sees it, with its references and the seed of its draws.
        bound: The target, bound on the unchanged image.
        passes: Passes that give the scores of targets on layers.
        forwards: How many images went through the network for queries so far.
        agreements: In which precision changed images were scored each time a lower one was asked
            for, and its agreement with float32; None where there was nothing to compare.
    """

    def __init__(
        self, engine: Context, stream_input: StreamInput, bound: BoundTarget, passes: Passes
    ) -> None:
        self.engine, self.input, self.bound, self.passes = engine, stream_input, bound, passes
        self.forwards = 0
        self.agreements: list[tuple[Precision, float | None]] = []
        self._budget = _PredictionBudget(engine.model.device)

    @property
    def score(self) -> float:
        """S of the unchanged image."""
        return self.bound.scores[self.input.row]

    @property
    def spacing(self) -> tuple[float, ...]:
        """Millimeters per voxel; 1 per axis where unknown."""
        return self.engine.spacing or (1.0,) * len(self.engine.shape)

    def predict_masked(self, masks: Masks, fill: Fill) -> PerturbedPrediction:
        """The prediction under each mask, averaged over the images that a fill has."""
        painters = fill.painters(self.input, masks)
        return PerturbedPrediction.averaged(
            [self.predict_painted(painter, len(masks)) for painter in painters]
        )

    def predict_painted(self, painter: Painter, count: int) -> PerturbedPrediction:
        """The prediction for each of the images that a painter makes."""
        return self.predict_many(count, painter.painted)

    def predict_many(self, count: int, images: Callable[[range], Tensor]) -> PerturbedPrediction:
        """The prediction for many changed images, a few of which exist at a time.

        Args:
            count: How many images there are.
            images: Makes those with some numbers, ``(k, C, *spatial)``.
        """
        predictions, precision = [], self._precision_for(count, images)

        def predict(numbers: range) -> None:
            with self._budget.measured(len(numbers)):
                predictions.append(self.predict(images(numbers), precision))

        in_batches(count, self._budget, predict)
        return PerturbedPrediction.joined(predictions)

    def _precision_for(self, count: int, images: Callable[[range], Tensor]) -> Precision:
        """The precision of the network where a few scores agree in it, and otherwise float32."""
        model = self.engine.model
        precision, least = model.resolved_precision, 2 * SCORES_TRIED
        if model.precision == "auto":
            least *= 2
        runs_low = precision in HALF or (precision in LOW and model.device.type == "cuda")
        if not runs_low or model.dtype is not torch.float32 or count < least:
            return "float32"
        tried = spread(range(count))

        def scores(kind: Precision) -> list[Tensor]:
            shown = (images(range(number, number + 1)) for number in tried)
            return of_scores(self.score, [float(self.predict(x, kind).scores) for x in shown])

        found = least_agreement(scores(precision), scores("float32"))
        used: Precision = "float32" if is_refused(found) else precision
        self.agreements.append((used, found))
        if used != precision:
            warnings.warn(
                f"{in_words(precision, found)}, so changed images were scored in float32",
                VoxplainWarning,
                stacklevel=3,
            )
        return used

    def predict(self, images: Tensor, precision: Precision = "float32") -> PerturbedPrediction:
        """The prediction for changed images ``(k, C, *spatial)``, all in one call."""
        self.forwards += len(images)
        rows = [self.input.row] * len(images)
        if self.bound.field.layer is not None:
            passes = self.passes.with_model(self.engine.model.in_precision(precision))
            return PerturbedPrediction(passes.scores(Points(images, rows)))
        model = self.engine.model.in_precision(precision)
        with torch.inference_mode(), model.precise():
            output = model.output(images, self.engine.spacing)
            rebind = self.bound.rebind
            weights = rebind(output) if rebind else self.bound.field.rows(rows)
            return PerturbedPrediction.of_output(
                output,
                weights.score(output).cpu(),
                self.bound,
                self.input.row,
                self._predicted_object,
            )

    @cached_property
    def _predicted_object(self) -> Tensor | None:
        row = self.input.row
        objects = predicted_object(self.bound, row, self.bound.unperturbed.output[row][None])
        return None if objects is None else objects[0]


class _PredictionBudget(ForwardBudget):
    """Leaves no single image for a last batch, which would take as long as four."""

    def next(self, waiting: int) -> int:
        """How many of the waiting images go next."""
        return waiting if 1 < self.size == waiting - 1 else super().next(waiting)
