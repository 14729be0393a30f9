"""What two precisions are compared by: a few passes of each, and how far these agree."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from voxplain.models.precision import agreement

LEAST_AGREEMENT = 0.99
"""Smallest agreement with float32 at which a lower precision is used."""
SCORES_TRIED = 12
"""Changed images whose scores are compared."""


def least_agreement(low: Sequence[Tensor], exact: Sequence[Tensor]) -> float | None:
    """The smallest agreement of several tensors with those of float32; None if these are all 0."""
    pairs = zip(low, exact, strict=True)
    return min((agreement(*pair) for pair in pairs if bool(pair[1].any())), default=None)


def is_refused(found: float | None) -> bool:
    """Whether an agreement is too small for a lower precision to be used."""
    return found is None or found < LEAST_AGREEMENT


def in_words(precision: str, found: float | None) -> str:
    """Why a lower precision is not used."""
    if found is None:
        return f"all that {precision} could be compared by is 0"
    return f"{precision} agrees with float32 by {found:.3g}, where {LEAST_AGREEMENT} is needed"


def spread(numbers: Sequence[int]) -> list[int]:
    """A few of some numbers, in order: all over them, and at no fixed distance.

    Masks come in rows, so that every tenth one may lie at the same edge of the image.
    """
    if len(numbers) <= SCORES_TRIED:
        return list(numbers)
    golden = (math.sqrt(5) - 1) / 2
    places = {int((number + 0.5) * golden % 1 * len(numbers)) for number in range(SCORES_TRIED)}
    return [numbers[place] for place in sorted(places)]


def of_scores(unchanged: float, scores: Sequence[float]) -> list[Tensor]:
    """The scores of changed images, how far they fell, and how these falls differ.

    However small the falls are beside the score, a lower precision has to give them; and where all
    of them are about as large, their differences decide how a map looks.

    Args:
        unchanged: Score of the image itself.
        scores: Of the changed images.
    """
    known = torch.tensor([unchanged, *scores], dtype=torch.float64)
    falls = known[0] - known[1:]
    return [known, falls, falls - falls.mean()] if len(falls) > 1 else [known, falls]
