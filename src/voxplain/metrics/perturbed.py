"""Predictions for changed images, compared with the prediction for the unchanged one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from voxplain.engine.context import BoundTarget
from voxplain.targets.field import predicted_mask
from voxplain.targets.scores import volume_per_voxel


@dataclass(frozen=True, eq=False)
class PerturbedPrediction:
    """The predictions for n changed versions of an image.

    Attributes:
        scores: S, ``(n,)`` float64.
        overlap: Dice of the predicted object with the one on the unchanged image, ``(n,)``; None
            where the output is not dense.
        volume: Of the predicted object, in mL (cm² in 2-D, voxels without physical size).
        agreed: Whether a classifier still prefers the same class, ``(n,)``.
    """

    scores: Tensor
    overlap: Tensor | None = None
    volume: Tensor | None = None
    agreed: Tensor | None = None

    @classmethod
    def of_output(
        cls,
        output: Tensor,
        scores: Tensor,
        bound: BoundTarget,
        row: int,
        unchanged: Tensor | None,
    ) -> PerturbedPrediction:
        """The predictions behind an output of the network.

        Args:
            output: ``(n, K, *spatial)`` or ``(n, K)``, for the changed images.
            scores: S, ``(n,)``.
            bound: The target and the output for the unchanged images.
            row: Of the image among the unchanged ones.
            unchanged: The predicted object on the unchanged image, ``(*spatial)`` bool; None where
                :func:`predicted_object` gives none.
        """
        if not bound.unperturbed.is_dense:
            before = bound.unperturbed.output[row][None]
            if output.shape[1] == 1 and bound.unperturbed.is_unclear(bound.target.activation):
                return cls(scores)
            agreed = _preferred_class(bound, output) == _preferred_class(bound, before)
            return cls(scores, agreed=agreed.cpu())
        objects = predicted_object(bound, row, output)
        if objects is None or unchanged is None:
            return cls(scores)
        sizes = objects.flatten(1).sum(dim=1).double()
        common = (objects & unchanged).flatten(1).sum(dim=1).double()
        overlap = 2 * common / (sizes + unchanged.sum()).clamp_min(1)
        return cls(scores, overlap.cpu(), (sizes * volume_per_voxel(bound.unperturbed)[0]).cpu())

    def __getitem__(self, rows: Sequence[int]) -> PerturbedPrediction:
        """The predictions of these rows, in this order."""
        columns = (getattr(self, name) for name in _COLUMNS)
        chosen = (column if column is None else column[list(rows)] for column in columns)
        return PerturbedPrediction(*chosen)  # type: ignore[arg-type]

    @classmethod
    def joined(cls, predictions: Sequence[PerturbedPrediction]) -> PerturbedPrediction:
        """Several predictions one after the other."""
        columns = ([getattr(prediction, name) for prediction in predictions] for name in _COLUMNS)
        return cls(*(_concatenated(column) for column in columns))  # type: ignore[arg-type]

    @classmethod
    def averaged(cls, predictions: Sequence[PerturbedPrediction]) -> PerturbedPrediction:
        """The mean of several predictions for the same changes, such as several fill images."""
        if len(predictions) == 1:
            return predictions[0]
        columns = ([getattr(prediction, name) for prediction in predictions] for name in _COLUMNS)
        return cls(*(_mean(column) for column in columns))  # type: ignore[arg-type]


_COLUMNS = ("scores", "overlap", "volume", "agreed")


def predicted_object(bound: BoundTarget, row: int, output: Tensor) -> Tensor | None:
    """Where the class of a target is predicted, ``(k, *spatial)`` bool.

    Args:
        bound: The target.
        row: Of the image among those it was bound on.
        output: ``(k, K, *spatial)``.

    Returns:
        None where the output is not dense, the target is not about a class of it, or it is unclear
        whether it holds probabilities.
    """
    label, seen = bound.field.label_of(row), bound.unperturbed
    if not seen.is_dense or label is None or bound.field.layer is not None:
        return None
    if seen.is_unclear(bound.target.activation):
        return None
    return predicted_mask(output, label, bound.activation, bound.target.threshold)


def _preferred_class(bound: BoundTarget, output: Tensor) -> Tensor:
    """The class of the largest score; of networks with one score the side of the threshold."""
    if output.shape[1] > 1:
        return output.argmax(dim=1)
    return predicted_mask(output, 1, bound.activation, bound.target.threshold).long()


def _mean(column: Sequence[Tensor | None]) -> Tensor | None:
    tensors = [values.double() for values in column if values is not None]
    return torch.stack(tensors).mean(dim=0) if tensors else None


def _concatenated(column: Sequence[Tensor | None]) -> Tensor | None:
    tensors = [values for values in column if values is not None]
    return torch.cat(tensors) if tensors else None
