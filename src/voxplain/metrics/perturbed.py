"""What became of a prediction under changes of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class PerturbedPrediction:
    """What became of the prediction under some changes of the image.

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

    def __getitem__(self, rows: Sequence[int]) -> PerturbedPrediction:
        """Some of them, in this order."""
        columns = (getattr(self, name) for name in _FIELDS)
        chosen = (column if column is None else column[list(rows)] for column in columns)
        return PerturbedPrediction(*chosen)  # type: ignore[arg-type]

    @classmethod
    def joined(cls, parts: Sequence[PerturbedPrediction]) -> PerturbedPrediction:
        """One after the other."""
        return cls(*(_cat([getattr(part, name) for part in parts]) for name in _FIELDS))  # type: ignore[arg-type]

    @classmethod
    def averaged(cls, parts: Sequence[PerturbedPrediction]) -> PerturbedPrediction:
        """The mean of several looks at the same changes."""
        if len(parts) == 1:
            return parts[0]
        columns = ([getattr(part, name) for part in parts] for name in _FIELDS)
        return cls(*(_mean(column) for column in columns))  # type: ignore[arg-type]


def _mean(column: Sequence[Tensor | None]) -> Tensor | None:
    held = [part.double() for part in column if part is not None]
    return torch.stack(held).mean(dim=0) if held else None


def _cat(column: Sequence[Tensor | None]) -> Tensor | None:
    held = [part for part in column if part is not None]
    return torch.cat(held) if held else None


_FIELDS = ("scores", "overlap", "volume", "agreed")
